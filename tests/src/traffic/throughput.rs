//! How fast TCP gets from one machine to another, and what CPU time that takes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use nix::unistd::gettid;

use super::connection::connect;
use super::{Carriers, CpuTime, Endpoint};

const CHUNK: usize = 128 * 1024;
/// Until the windows are open.
const WARM_UP: Duration = Duration::from_millis(300);

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Payload.
    pub bytes: u64,
    /// In this time.
    pub time: Duration,
    /// Used meanwhile.
    pub cpu: CpuTime,
}

impl Throughput {
    /// Bits of payload per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64()
    }
}

/// What arrives over `streams` connections together, in `time` after a short warm-up. `between` are those
/// whose CPU time counts besides that of the ends.
///
/// # Errors
/// A connection fails, or one of them brings nothing.
pub fn throughput(
    from: &Endpoint,
    to: &Endpoint,
    streams: usize,
    time: Duration,
    between: &Carriers,
) -> Result<Throughput> {
    let (received, mut carriers) = (Arc::new(AtomicU64::new(0)), between.clone());
    let mut closers = Vec::new();
    let mut receivers = Vec::new();
    for _ in 0..streams {
        let (near, far) = connect(from, to)?;
        closers.push(near.try_clone()?);
        let (tell_sender, sender) = channel();
        thread::spawn(move || {
            tell_sender.send(gettid()).ok();
            send(near);
        });
        let (received, (tell_receiver, receiver)) = (received.clone(), channel());
        receivers.push(thread::spawn(move || {
            tell_receiver.send(gettid()).ok();
            receive(far, &received)
        }));
        carriers.add_sender(sender.recv()?);
        carriers.add_receiver(receiver.recv()?);
    }
    sleep(WARM_UP);
    let bytes = || received.load(Ordering::Relaxed);
    let (cpu, before, begin) = (carriers.used()?, bytes(), Instant::now());
    sleep(time);
    let (after, time, cpu) = (bytes(), begin.elapsed(), carriers.used()? - cpu);
    closers.iter().try_for_each(|stream| stream.shutdown(Shutdown::Write))?;
    for receiver in receivers {
        let bytes = receiver.join().map_err(|_| anyhow!("a receiver panicked"))??;
        ensure!(bytes > 0, "a stream from {} to {} brought nothing", from.name, to.name);
    }
    Ok(Throughput { bytes: after - before, time, cpu })
}

/// Sends until its end of the connection is shut down.
fn send(mut stream: TcpStream) {
    let chunk = vec![0x5a; CHUNK];
    while stream.write_all(&chunk).is_ok() {}
}

fn receive(mut stream: TcpStream, received: &AtomicU64) -> Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut buffer)? as u64 {
            0 => return Ok(total),
            length => {
                received.fetch_add(length, Ordering::Relaxed);
                total += length;
            }
        }
    }
}
