//! How fast TCP gets from one machine to another.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::Endpoint;
use super::connection::connect;

const CHUNK: usize = 128 * 1024;
/// Until the windows are open.
const WARM_UP: Duration = Duration::from_millis(300);

/// Bits per second that arrive over `streams` connections together, in `time` after a short warm-up.
///
/// # Errors
/// A connection fails, or one of them brings nothing.
pub fn throughput(from: &Endpoint, to: &Endpoint, streams: usize, time: Duration) -> Result<f64> {
    let received = Arc::new(AtomicU64::new(0));
    let mut closers = Vec::new();
    let mut receivers = Vec::new();
    for _ in 0..streams {
        let (near, far) = connect(from, to)?;
        closers.push(near.try_clone()?);
        thread::spawn(move || send(near));
        let received = received.clone();
        receivers.push(thread::spawn(move || receive(far, &received)));
    }
    sleep(WARM_UP);
    let (before, begin) = (received.load(Ordering::Relaxed), Instant::now());
    sleep(time);
    let (after, elapsed) = (received.load(Ordering::Relaxed), begin.elapsed());
    closers.iter().try_for_each(|stream| stream.shutdown(Shutdown::Write))?;
    for receiver in receivers {
        let bytes = receiver.join().map_err(|_| anyhow!("a receiver panicked"))??;
        ensure!(bytes > 0, "a stream from {} to {} brought nothing", from.name, to.name);
    }
    Ok((after - before) as f64 * 8.0 / elapsed.as_secs_f64())
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
