//! Datagrams with numbers at a steady pace: exactly how many are lost while something happens.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

use super::Endpoint;
use super::backlog::backlog_drops;
use crate::wait;

/// How often a burst is sent.
const TICK: Duration = Duration::from_millis(1);
/// How long stragglers are waited for.
const SETTLE: Duration = Duration::from_millis(300);
/// The number of a probe.
const PROBE: u64 = u64::MAX;
/// Room for a second of datagrams of a stream that is not read.
const BUFFER: usize = 32 << 20;

/// Datagrams being sent.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Arrived>>,
    backlog_drops: u64,
}

/// Their result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Losses {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that never arrived.
    pub lost: u64,
    /// Datagrams that arrived again.
    pub duplicates: u64,
    /// Datagrams that arrived behind a later one.
    pub overtaken: u64,
    /// Longest time without an arrival.
    pub longest_gap: Duration,
    /// Packets of anybody on this machine that CPUs had no room for meanwhile; see [`backlog_drops`].
    pub excused: u64,
}

impl Losses {
    /// Datagrams that were lost and not for want of the machine's time.
    #[must_use]
    pub const fn unexcused(&self) -> u64 {
        self.lost.saturating_sub(self.excused)
    }

    /// The same of streams that ran at the same time.
    pub fn unexcused_of(all: &[Self]) -> u64 {
        let (lost, excused) = (all.iter().map(|losses| losses.lost), all.iter().map(|losses| losses.excused));
        lost.sum::<u64>().saturating_sub(excused.max().unwrap_or(0))
    }
}

#[derive(Debug, Default)]
struct Arrived {
    seen: Vec<bool>,
    duplicates: u64,
    overtaken: u64,
    longest_gap: Duration,
    last: Option<Instant>,
}

impl Stream {
    /// Begins to send `rate` datagrams per second, a multiple of 1000, once a first one has arrived: until the
    /// neighbours on the path know each other, kernels drop what they cannot queue.
    ///
    /// # Errors
    /// The sockets cannot be made; nothing arrives.
    pub fn start(from: &Endpoint, to: &Endpoint, rate: u32) -> Result<Self> {
        let bind = |end: &Endpoint| end.namespace.within(|| Ok(UdpSocket::bind((end.address, 0))?));
        let (near, far) = (bind(from)?, bind(to)?);
        setsockopt(&far, sockopt::RcvBufForce, &BUFFER)?;
        let (stop, address) = (Arc::new(AtomicBool::new(false)), far.local_addr()?);
        open_the_way(&near, &far)?;
        far.set_read_timeout(Some(wait::stretched(SETTLE)))?;
        // Datagrams a kernel holds back would stop the sender.
        near.set_nonblocking(true)?;
        let (sender_stop, receiver_stop) = (stop.clone(), stop.clone());
        let burst = u64::from(rate.div_ceil(1000));
        let backlog_drops = backlog_drops()?;
        Ok(Self {
            stop,
            sender: thread::spawn(move || send(&near, address, burst, &sender_stop)),
            receiver: thread::spawn(move || receive(&far, &receiver_stop)),
            backlog_drops,
        })
    }

    /// Stops sending, waits for the last datagrams and counts.
    ///
    /// # Errors
    /// A socket failed.
    pub fn stop(self) -> Result<Losses> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now();
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let arrived = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let received = arrived.seen.iter().filter(|seen| **seen).count() as u64;
        let last_gap = arrived.last.map_or(Duration::MAX, |last| end.saturating_duration_since(last));
        Ok(Losses {
            sent,
            lost: sent - received,
            duplicates: arrived.duplicates,
            overtaken: arrived.overtaken,
            longest_gap: arrived.longest_gap.max(last_gap),
            excused: backlog_drops()? - self.backlog_drops,
        })
    }
}

/// Sends probes until one arrives.
fn open_the_way(near: &UdpSocket, far: &UdpSocket) -> Result<()> {
    far.set_read_timeout(Some(Duration::from_millis(50)))?;
    wait::until("a first datagram", Duration::from_secs(10), || {
        near.send_to(&PROBE.to_be_bytes(), far.local_addr()?)?;
        Ok(far.recv(&mut [0; 8])?)
    })?;
    Ok(())
}

fn send(socket: &UdpSocket, to: SocketAddr, burst: u64, stop: &AtomicBool) -> Result<u64> {
    let (mut number, begin) = (0_u64, Instant::now());
    let mut due = begin;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..burst {
            let sent = socket.send_to(&number.to_be_bytes(), to);
            // A missing receiver is a loss like any other; a full socket is none.
            number += u64::from(!sent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        }
        due += TICK;
        sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(number)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<Arrived> {
    let (mut arrived, mut buffer) = (Arrived::default(), [0; 8]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let number =
                    buffer.get(..length).filter(|_| length == 8).context("a foreign datagram arrived")?;
                let number = u64::from_be_bytes(number.try_into()?);
                if number == PROBE {
                    continue;
                }
                arrived.note(usize::try_from(number)?);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(arrived);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Arrived {
    fn note(&mut self, number: usize) {
        let now = Instant::now();
        let gap = now - self.last.replace(now).unwrap_or(now);
        self.longest_gap = self.longest_gap.max(gap);
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        } else {
            self.overtaken += 1;
        }
        match self.seen.get_mut(number) {
            Some(seen) if !*seen => *seen = true,
            _ => self.duplicates += 1,
        }
    }
}
