//! Tests side by side, each in a process.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::job::{Job, Outcome};

/// After so much time without the end of a test, those that run are named.
const SILENCE: Duration = Duration::from_mins(1);

/// The result of one of several jobs, by its place among them.
enum Event {
    Started(usize),
    Ended(usize, Result<Outcome>),
}

/// Runs all of `jobs`, this number at a time, in their order, and gives each to `ended` when it has ended.
///
/// # Errors
/// One cannot be started, or `ended` fails; those that run are waited for.
pub fn run(
    jobs: &[Job],
    at_once: NonZeroUsize,
    mut ended: impl FnMut(&Job, Outcome) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..at_once.get().min(jobs.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || work(jobs, next, &sender));
        }
        drop(sender);
        let mut running = BTreeSet::new();
        loop {
            match receiver.recv_timeout(SILENCE) {
                Ok(Event::Started(place)) => drop(running.insert(place)),
                Ok(Event::Ended(place, outcome)) => {
                    running.remove(&place);
                    ended(&jobs[place], outcome?)?;
                }
                Err(RecvTimeoutError::Timeout) => say_running(running.iter().map(|place| &jobs[*place])),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// Takes one job after the other, until there are no more or nobody listens: after an error.
fn work(jobs: &[Job], next: &AtomicUsize, events: &Sender<Event>) {
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = jobs.get(place) else { return };
        if events.send(Event::Started(place)).is_err() || events.send(Event::Ended(place, job.run())).is_err()
        {
            return;
        }
    }
}

fn say_running<'a>(jobs: impl Iterator<Item = &'a Job>) {
    let names: Vec<String> = jobs.map(|job| format!("{} {}", job.suite(), job.name)).collect();
    println!("still running: {}", names.join(", "));
}
