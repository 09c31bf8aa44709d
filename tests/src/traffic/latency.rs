//! How long one byte takes there and back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::connection::connect;
use super::{Endpoint, stay_on_cpu};
use crate::wait;

/// Times from a request to its answer.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of them are shorter.
    pub p50: Duration,
    /// One in a hundred is longer.
    pub p99: Duration,
    /// How many there were.
    pub count: usize,
}

/// Where the two ends of a connection run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// On one CPU, so that what differs between two paths is the paths: to wake another CPU takes up to ten times
    /// as long.
    Together,
    /// On a CPU each, as two hosts do.
    Apart,
}

/// Enough answers for percentiles.
const ENOUGH: usize = 100;
/// For so long at most they are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one byte back and forth over one connection for `time`, or a little longer on a machine that does much else.
///
/// # Errors
/// The connection fails.
pub fn latency(from: &Endpoint, to: &Endpoint, time: Duration, ends: Ends) -> Result<Latency> {
    let (near, far) = connect(from, to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let measuring = thread::spawn(move || {
        let echo = thread::spawn(move || {
            let stayed = stay_on_cpu(usize::from(ends == Ends::Apart));
            echo(far);
            stayed
        });
        stay_on_cpu(0)?;
        let times = ask(near, time)?;
        echo.join().map_err(|_| anyhow!("the echo panicked"))??;
        anyhow::Ok(times)
    });
    let mut times = measuring.join().map_err(|_| anyhow!("the measurement panicked"))??;
    times.sort_unstable();
    ensure!(times.len() >= ENOUGH, "only {} answers in {:?}", times.len(), wait::stretched(PATIENCE));
    let percentile = |percent: usize| times[times.len() * percent / 100];
    Ok(Latency { p50: percentile(50), p99: percentile(99), count: times.len() })
}

fn ask(mut near: TcpStream, time: Duration) -> Result<Vec<Duration>> {
    let (mut times, start) = (Vec::new(), Instant::now());
    while start.elapsed() < time || (times.len() < ENOUGH && start.elapsed() < wait::stretched(PATIENCE)) {
        let begin = Instant::now();
        near.write_all(b"?")?;
        near.read_exact(&mut [0])?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}
