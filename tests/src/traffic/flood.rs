//! Small datagrams as fast as one thread can send them: how many arrive, and what CPU time each takes.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::libc::{self, iovec, mmsghdr, msghdr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use super::cpu::stay_on_cpu;
use super::{Carriers, CpuTime, Endpoint};

/// Bytes of a datagram's payload.
pub const PAYLOAD: usize = 64;
/// Datagrams of one system call, so that its own price hardly counts.
const BATCH: usize = 64;
/// Until every queue is as full as it will be.
const WARM_UP: Duration = Duration::from_millis(200);
/// Bytes the receiver's socket holds.
const BUFFER: usize = 8 << 20;
/// How long the receiver rests when nothing is there. Woken for every datagram, it would measure how long it takes
/// to wake another CPU, which is longer than any path.
const REST: Duration = Duration::from_micros(500);

/// The result of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// In this time.
    pub time: Duration,
    /// Used meanwhile.
    pub cpu: CpuTime,
}

impl Flood {
    /// Datagrams received per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64()
    }

    /// Share of those sent that did not arrive.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.received.min(self.sent) as f64 / self.sent as f64
    }
}

/// Sends for `time`, after a short warm-up. Sender and receiver have a CPU each, as two hosts would; every datagram is
/// a packet of its own on the whole path. `between` are those whose CPU time counts besides.
///
/// # Errors
/// The sockets cannot be made, or nothing arrives.
pub fn flood(from: &Endpoint, to: &Endpoint, time: Duration, between: &Carriers) -> Result<Flood> {
    let bind = |end: &Endpoint| end.namespace.within(|| Ok(UdpSocket::bind((end.address, 0))?));
    let (near, far) = (bind(from)?, bind(to)?);
    // Whoever gets datagrams has asked for them: its host is known to the sender's.
    far.send_to(&[], near.local_addr()?)?;
    near.connect(far.local_addr()?)?;
    setsockopt(&far, sockopt::RcvBufForce, &BUFFER)?;
    far.set_nonblocking(true)?;
    let (sent, received, stop) = (Count::default(), Count::default(), Arc::new(AtomicBool::new(false)));
    let mut carriers = between.clone();
    let receiver = start(1, &received, &stop, move |batch| batch.receive(&far));
    carriers.add_receiver(receiver.thread()?);
    let sender = start(0, &sent, &stop, move |batch| batch.send(&near));
    carriers.add_sender(sender.thread()?);

    sleep(WARM_UP);
    let now = || (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    let (cpu, before, begin) = (carriers.used()?, now(), Instant::now());
    sleep(time);
    let (after, time, cpu) = (now(), begin.elapsed(), carriers.used()? - cpu);
    stop.store(true, Ordering::Relaxed);
    sender.end()?;
    receiver.end()?;
    let flood = Flood { sent: after.0 - before.0, received: after.1 - before.1, time, cpu };
    ensure!(flood.received > 0, "nothing of a flood from {} to {} arrives: {flood:?}", from.name, to.name);
    Ok(flood)
}

type Count = Arc<AtomicU64>;

/// A thread that calls the kernel in a loop.
struct Running {
    thread: std::sync::mpsc::Receiver<Pid>,
    handle: thread::JoinHandle<Result<()>>,
}

impl Running {
    fn thread(&self) -> Result<Pid> {
        self.thread.recv().context("a thread of the flood ended before it began")
    }

    fn end(self) -> Result<()> {
        self.handle.join().map_err(|_| anyhow!("a thread of the flood panicked"))?
    }
}

fn start(
    cpu: usize,
    count: &Count,
    stop: &Arc<AtomicBool>,
    call: impl Fn(&mut Batch) -> io::Result<usize> + Send + 'static,
) -> Running {
    let (count, stop, (tell, thread)) = (count.clone(), stop.clone(), channel());
    let handle = thread::spawn(move || run(cpu, &tell, &count, &stop, call));
    Running { thread, handle }
}

fn run(
    cpu: usize,
    tell: &Sender<Pid>,
    count: &AtomicU64,
    stop: &AtomicBool,
    call: impl Fn(&mut Batch) -> io::Result<usize>,
) -> Result<()> {
    tell.send(stay_on_cpu(cpu)?)?;
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        match call(&mut batch) {
            Ok(done) => _ = count.fetch_add(done as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(REST),
            // Nobody listens any more, or a queue on the path is full: a loss like any other.
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(error).context("the flood's socket failed"),
        }
    }
    Ok(())
}

fn is_loss(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Room for the datagrams of one call. The pointers inside lead to its own parts, which stay where they are.
struct Batch {
    headers: Vec<mmsghdr>,
    _vectors: Vec<iovec>,
    _payloads: Vec<[u8; PAYLOAD]>,
}

impl Batch {
    fn new() -> Self {
        let mut payloads = vec![[0x5a; PAYLOAD]; BATCH];
        let vector =
            |payload: &mut [u8; PAYLOAD]| iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: PAYLOAD };
        let mut vectors: Vec<iovec> = payloads.iter_mut().map(vector).collect();
        let headers = vectors.iter_mut().map(header).collect();
        Self { headers, _vectors: vectors, _payloads: payloads }
    }

    fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: every header leads to one vector and one payload that live as long as `self`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH as u32, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Takes those that are there.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let headers = self.headers.as_mut_ptr();
        // SAFETY: as in `send`; no call continues with another one's headers, because `self` is borrowed exclusively.
        let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as u32, 0, null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }
}

fn header(vector: &mut iovec) -> mmsghdr {
    // SAFETY: a message header is plain data, of which zeros are a value: no name, no control data.
    let mut header: msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    mmsghdr { msg_hdr: header, msg_len: 0 }
}
