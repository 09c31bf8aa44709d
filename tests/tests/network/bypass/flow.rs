//! Flows that run on while something happens.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flannel_tests::traffic::Endpoint;
use flannel_tests::wait;
use nix::libc;

const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// What arrives of a flow, until it is dropped.
struct Arrivals {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Arrivals {
    fn new() -> Self {
        Self { count: Arc::default(), stop: Arc::default(), threads: Vec::new() }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.count() + more;
        wait::until_true(&format!("{more} more arrivals"), PATIENCE, || self.count() >= wanted)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Any traffic between two pods.
pub trait Flow {
    /// What has arrived so far.
    fn count(&self) -> u64;

    /// Waits until so much more has arrived.
    fn wait_for(&self, more: u64) -> Result<()>;

    /// What arrives in a time that begins after another one.
    fn arrivals(&self, after: Duration, within: Duration) -> u64 {
        sleep(after);
        let before = self.count();
        sleep(within);
        self.count() - before
    }
}

/// A datagram in a millisecond. Each says when it was sent, in microseconds from the start.
pub struct Datagrams {
    arrivals: Arrivals,
    socket: UdpSocket,
    start: Instant,
    /// When the latest one of those that arrived was sent.
    latest: Arc<AtomicU64>,
}

impl Datagrams {
    pub fn start(from: &Endpoint, to: &Endpoint) -> Result<Self> {
        let far = to.namespace.within(|| Ok(UdpSocket::bind((to.address, 0))?))?;
        Self::to(from, far)
    }

    /// Sends to the address and the port of `far`.
    pub fn to(from: &Endpoint, far: UdpSocket) -> Result<Self> {
        let socket = from.namespace.within(|| Ok(UdpSocket::bind((from.address, 0))?))?;
        socket.connect(far.local_addr()?)?;
        let mut arrivals = Arrivals::new();
        let (near, stop, start) = (socket.try_clone()?, arrivals.stop.clone(), Instant::now());
        arrivals.threads.push(spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                drop(near.send(&(start.elapsed().as_micros() as u64).to_be_bytes()));
                sleep(PAUSE);
            }
        }));
        let mut datagrams = Self { arrivals, socket, start, latest: Arc::default() };
        datagrams.receive(far)?;
        Ok(datagrams)
    }

    /// Counts what arrives at another socket from now on.
    pub fn receive(&mut self, far: UdpSocket) -> Result<()> {
        far.set_read_timeout(Some(Duration::from_millis(20)))?;
        let (count, stop) = (self.arrivals.count.clone(), self.arrivals.stop.clone());
        let latest = self.latest.clone();
        self.arrivals.threads.push(spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut sent = [0; 8];
                if far.recv(&mut sent).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                    latest.fetch_max(u64::from_be_bytes(sent), Ordering::Relaxed);
                }
            }
        }));
        Ok(())
    }

    /// When the latest one of those that arrived was sent.
    pub fn latest(&self) -> Instant {
        self.start + Duration::from_micros(self.latest.load(Ordering::Relaxed))
    }

    /// Whom it is sent to.
    pub fn target(&self) -> Result<SocketAddr> {
        Ok(self.socket.peer_addr()?)
    }

    /// Who sends it.
    pub fn source(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends datagrams of that payload which must not be cut, until the sender learns how long they may be.
    pub fn send_unfragmented(&self, payload: usize, limit: Duration) -> Result<Option<u32>> {
        set_option(&self.socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
        let end = Instant::now() + limit;
        while Instant::now() < end {
            match self.socket.send(&vec![0; payload]) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    return path_mtu(&self.socket).map(Some);
                }
                _ => sleep(PAUSE),
            }
        }
        Ok(None)
    }
}

impl Flow for Datagrams {
    fn count(&self) -> u64 {
        self.arrivals.count()
    }

    fn wait_for(&self, more: u64) -> Result<()> {
        self.arrivals.wait_for(more)
    }
}

/// A TCP connection over which a kilobyte goes in a millisecond.
pub struct Bytes {
    arrivals: Arrivals,
}

impl Bytes {
    pub fn start(from: &Endpoint, to: &Endpoint) -> Result<Self> {
        let listener = to.namespace.within(|| Ok(TcpListener::bind((to.address, 0))?))?;
        let address = listener.local_addr()?;
        let mut near = from
            .namespace
            .within(|| Ok(TcpStream::connect_timeout(&address, wait::stretched(PATIENCE))?))
            .context("cannot connect")?;
        let (mut far, _) = listener.accept()?;
        near.set_write_timeout(Some(Duration::from_millis(20)))?;
        near.set_nodelay(true)?;
        far.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut arrivals = Arrivals::new();
        let stop = arrivals.stop.clone();
        arrivals.threads.push(spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                drop(near.write(&[0; 1024]));
                sleep(PAUSE);
            }
        }));
        let (count, stop) = (arrivals.count.clone(), arrivals.stop.clone());
        arrivals.threads.push(spawn(move || {
            let mut buffer = [0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                match far.read(&mut buffer) {
                    Ok(bytes) => drop(count.fetch_add(bytes as u64, Ordering::Relaxed)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }));
        Ok(Self { arrivals })
    }
}

impl Flow for Bytes {
    fn count(&self) -> u64 {
        self.arrivals.count()
    }

    fn wait_for(&self, more: u64) -> Result<()> {
        self.arrivals.wait_for(more)
    }
}

fn set_option(socket: &UdpSocket, option: i32, value: i32) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>())?;
    // SAFETY: the kernel reads one number.
    let code = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const value).cast(), size)
    };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

fn path_mtu(socket: &UdpSocket) -> Result<u32> {
    let (mut mtu, mut size) = (0_i32, libc::socklen_t::try_from(size_of::<i32>())?);
    // SAFETY: the kernel writes one number, and its size.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU,
            (&raw mut mtu).cast(),
            &raw mut size,
        )
    };
    if code == 0 { Ok(u32::try_from(mtu)?) } else { Err(std::io::Error::last_os_error().into()) }
}
