//! A proxy between the daemons and etcd: it is as slow as it is set, or silent, or hangs up.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::namespace::Namespace;

/// What a limited rate may make up for.
const SLACK: Duration = Duration::from_millis(50);

/// How it treats what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The delay in each direction.
    pub latency: Duration,
    /// Bytes a second in each direction of each connection; 0 for no limit.
    pub rate: u32,
    /// Whether connections are taken, and nothing passes.
    pub is_silent: bool,
    /// Whether connections are ended at once.
    pub is_cut: bool,
}

/// A running proxy, ended when dropped.
#[derive(Debug)]
pub struct Proxy {
    manner: Option<watch::Sender<Manner>>,
    load: Arc<Load>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Load {
    open: AtomicUsize,
    most: AtomicUsize,
    heads: Mutex<Vec<Vec<u8>>>,
}

impl Proxy {
    /// Carries connections to `address` on to `target`.
    ///
    /// # Errors
    /// The address is taken.
    pub(super) fn start(namespace: &Namespace, address: SocketAddrV4, target: SocketAddrV4) -> Result<Self> {
        let listener = namespace.within(|| {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("a proxy cannot listen on {address}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let (sender, manner) = watch::channel(Manner::default());
        let load = Arc::new(Load::default());
        let (inside, counted) = (namespace.clone(), load.clone());
        // Connections are made on the thread that is in the namespace.
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(listener, target, manner, counted))
        };
        let thread = thread::spawn(move || {
            if let Err(error) = inside.within(work) {
                eprintln!("a proxy has ended: {error:#}");
            }
        });
        Ok(Self { manner: Some(sender), load, thread: Some(thread) })
    }

    /// Changes the manner.
    pub fn treat(&self, manner: Manner) {
        if let Some(sender) = &self.manner {
            sender.send_replace(manner);
        }
    }

    /// The most connections there were at one time since this was asked last.
    pub fn most_connections(&self) -> usize {
        self.load.most.swap(self.load.open.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// What clients began their connections with since this was asked last.
    pub fn take_heads(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.load.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Load {
    fn note(&self, head: &[u8]) {
        if !head.is_empty() {
            self.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.to_vec());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.manner = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Serves until nobody can change the manner any more.
async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddrV4,
    mut manner: watch::Receiver<Manner>,
    load: Arc<Load>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                tokio::spawn(carry(client, target, manner.clone(), load.clone()));
            }
            changed = manner.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddrV4,
    mut manner: watch::Receiver<Manner>,
    load: Arc<Load>,
) {
    let open = load.open.fetch_add(1, Ordering::Relaxed) + 1;
    load.most.fetch_max(open, Ordering::Relaxed);
    let told = manner.clone();
    let both = async {
        let mut head = [0; 64];
        let length = client.peek(&mut head).await?;
        load.note(head.get(..length).unwrap_or_default());
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(target).await?.into_split();
        tokio::select! {
            ended = pass(from_client, to_server, told.clone()) => ended,
            ended = pass(from_server, to_client, told.clone()) => ended,
        }
    };
    tokio::select! {
        // A broken connection is no news here.
        _ = both => {}
        _ = manner.wait_for(|manner| manner.is_cut) => {}
    }
    load.open.fetch_sub(1, Ordering::Relaxed);
}

/// Passes one direction on until it ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    manner: watch::Receiver<Manner>,
) -> Result<()> {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let told = manner.clone();
    let read = async move {
        let mut buffer = vec![0; 4096];
        loop {
            let length = from.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            let due = Instant::now() + told.borrow().latency;
            sender.send((due, bytes.to_vec())).await?;
        }
    };
    let write = async move {
        let (mut manner, mut free) = (manner, Instant::now());
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            manner.wait_for(|manner| !manner.is_silent).await?;
            let rate = manner.borrow().rate;
            if rate == 0 {
                to.write_all(&bytes).await?;
                continue;
            }
            for piece in bytes.chunks(128) {
                to.write_all(piece).await?;
                // Late wakeups must not make it slower than it is set.
                free = free.max(Instant::now() - SLACK) + Duration::from_secs(piece.len() as u64) / rate;
                sleep_until(free).await;
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Manner, Proxy};
    use crate::namespace::Namespace;
    use crate::wait;

    /// Sends so many bytes through to somebody who sends them back; how long that takes.
    fn echo(namespace: &Namespace, address: SocketAddrV4, bytes: usize) -> Duration {
        namespace
            .within(|| {
                let mut stream =
                    TcpStream::connect_timeout(&SocketAddr::from(address), Duration::from_secs(1))?;
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                let since = Instant::now();
                stream.write_all(&vec![7; bytes])?;
                stream.read_exact(&mut vec![0; bytes])?;
                Ok(since.elapsed())
            })
            .unwrap()
    }

    #[test]
    fn slowness_is_as_told() {
        let namespace = Namespace::add("proxy").unwrap();
        let [address, target] = [1, 2].map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let server = namespace.within(|| Ok(TcpListener::bind(target)?)).unwrap();
        thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        let proxy = Proxy::start(&namespace, address, target).unwrap();
        let echo = || {
            let time = echo(&namespace, address, 1000);
            let is_over = || proxy.load.open.load(Ordering::Relaxed) == 0;
            wait::until_true("the connection to be over", Duration::from_secs(5), is_over).unwrap();
            time
        };
        assert!(echo() < Duration::from_millis(700));
        proxy.treat(Manner { latency: Duration::from_millis(400), ..Manner::default() });
        assert!(echo() >= Duration::from_millis(800));
        proxy.treat(Manner { rate: 1000, ..Manner::default() });
        assert!(echo() >= Duration::from_millis(700));
        assert_eq!(proxy.most_connections(), 1);
    }
}
