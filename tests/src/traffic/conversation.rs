//! A connection over which little is said, for long: whether it outlives what happens meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Endpoint;
use super::connection::{connect, connect_by};

/// How often something is said.
const TICK: Duration = Duration::from_millis(5);

/// Numbers of eight bytes each, sent over one connection.
#[derive(Debug)]
pub struct Conversation {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Heard>>,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Numbers in their order.
    pub numbers: u64,
    /// Longest time in which none arrived.
    pub longest_pause: Duration,
}

impl Conversation {
    /// Opens a connection and begins to speak.
    ///
    /// # Errors
    /// No connection comes about.
    pub fn start(from: &Endpoint, to: &Endpoint) -> Result<Self> {
        Self::between(connect(from, to)?)
    }

    /// The same with `port` of `to` by another address, which the network translates.
    ///
    /// # Errors
    /// No connection comes about.
    pub fn start_by(from: &Endpoint, to: &Endpoint, port: u16, address: SocketAddr) -> Result<Self> {
        Self::between(connect_by(from, to, port, address)?)
    }

    fn between((near, far): (TcpStream, TcpStream)) -> Result<Self> {
        near.set_nodelay(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let sender_stop = stop.clone();
        Ok(Self {
            stop,
            sender: thread::spawn(move || speak(near, &sender_stop)),
            receiver: thread::spawn(move || hear(far)),
        })
    }

    /// Stops sending, and returns what was received.
    ///
    /// # Errors
    /// The connection has broken, or something arrived that was not said.
    pub fn stop(self) -> Result<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        let said = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?.context("cannot send")?;
        let heard =
            self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))?.context("cannot receive")?;
        ensure!(heard.numbers == said, "{} of {said} numbers arrived", heard.numbers);
        Ok(heard)
    }
}

fn speak(mut stream: TcpStream, stop: &AtomicBool) -> Result<u64> {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&number.to_be_bytes())?;
        number += 1;
        sleep(TICK);
    }
    stream.shutdown(Shutdown::Write)?;
    // The other end closes when it has read everything.
    stream.read_exact(&mut [0]).err().context("the receiver answered")?;
    Ok(number)
}

fn hear(mut stream: TcpStream) -> Result<Heard> {
    let (mut heard, mut last, mut word) = (Heard::default(), Instant::now(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            ensure!(word.is_empty(), "the connection ended within a number");
            return Ok(heard);
        }
        heard.longest_pause = heard.longest_pause.max(last.elapsed());
        last = Instant::now();
        word.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let whole = word.len() / 8 * 8;
        for number in word.drain(..whole).collect::<Vec<_>>().chunks_exact(8) {
            let number = u64::from_be_bytes(number.try_into()?);
            ensure!(number == heard.numbers, "{number} arrived instead of {}", heard.numbers);
            heard.numbers += 1;
        }
    }
}
