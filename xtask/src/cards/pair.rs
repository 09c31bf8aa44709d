//! Two guests at the ends of a wire.

use std::io::{self, Write as _};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use super::card::Card;
use super::tally::Tally;
use super::wire::{self, Side};
use crate::vm::{Kernel, Program, Settings, Stream};

/// The program that plays a host in a guest.
const HOST: &str = "card-host";
/// The module of the card. Nobody in a guest looks for modules of its devices.
const DRIVER: &str = "virtio_net";

/// Two guests with the same kernel and the same kind of card.
pub struct Pair<'a> {
    pub settings: &'a Settings,
    pub kernel: &'a Kernel,
    pub programs: &'a [Program],
    pub card: Card,
}

/// What a guest said, for when something goes wrong.
#[derive(Default)]
struct Said {
    output: String,
    errors: String,
}

impl Pair<'_> {
    /// Boots both and counts the cases; what keeps them from being tried is one that failed.
    pub fn run(&self, cases: Option<&str>) -> Tally {
        let ended = wire::with(self.card.has_verdicts(), || self.run_both(cases)).and_then(|ended| ended);
        ended.unwrap_or_else(|error| {
            println!("FAIL {}: {error:#}", self.card.name());
            Tally { passed: 0, failed: 1 }
        })
    }

    fn run_both(&self, cases: Option<&str>) -> Result<Tally> {
        // Threads and programs that this thread starts are in its namespace.
        let [near, far] = thread::scope(|scope| {
            let guests = Side::BOTH.map(|side| scope.spawn(move || self.run_one(side, cases)));
            guests.map(|guest| guest.join().unwrap_or_else(|_| Err(anyhow!("a guest's thread panicked"))))
        });
        if let Err(error) = &far {
            eprintln!("the far guest: {error:#}");
        }
        let tally = Tally::of(&near.context("the near guest")?.output);
        if tally == Tally::default() {
            bail!(
                "no case was tried; the far guest said: {}",
                far.map(|said| said.errors).unwrap_or_default()
            );
        }
        far.context("the far guest")?;
        Ok(tally)
    }

    fn run_one(&self, side: Side, cases: Option<&str>) -> Result<Said> {
        let devices = [self.card.device(side)];
        let mut guest = self.settings.guest(self.kernel, self.programs, &[]);
        guest.devices = &devices;
        let mut said = Said::default();
        let outcome =
            guest.run(&self.command(side, cases), |stream, bytes| said.note(side, stream, bytes))?;
        if outcome.code > 1 || (outcome.code == 1 && side == Side::Far) {
            bail!(
                "exit code {}; it said:\n{}\nand its kernel:\n{}",
                outcome.code,
                said.errors,
                outcome.kernel_log
            );
        }
        if side == Side::Near {
            let (boot, command) = (outcome.boot, outcome.command);
            eprintln!("booted in {boot:.1?}, ran for {command:.1?}");
        }
        Ok(said)
    }

    fn command(&self, side: Side, cases: Option<&str>) -> Vec<String> {
        let mut host = format!("exec {HOST} --side={} --card={}", side.port(), self.card.name());
        if let Some(cases) = cases {
            host += &format!(" --case={}", crate::step::quoted(cases));
        }
        ["sh", "-c", &format!("modprobe {DRIVER} && {host}")].map(str::to_owned).to_vec()
    }
}

impl Said {
    /// Keeps it; what the near guest says is shown at once.
    fn note(&mut self, side: Side, stream: Stream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        match stream {
            Stream::Stdout => self.output += &text,
            Stream::Stderr => self.errors += &text,
            Stream::Console | Stream::Status => return,
        }
        if side == Side::Near {
            // The reader may have gone; the guests' end is waited for anyway.
            drop(io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()));
        }
    }
}
