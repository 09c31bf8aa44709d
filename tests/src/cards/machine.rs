//! One of the two machines: a host with a card, its daemon and a pod.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde_json::Value;

use super::Side;
use super::order::{Digest, Obey, Order};
use crate::daemon::{Daemon, Settings};
use crate::etcd::PREFIX;
use crate::network::{BRIDGE, Host, Node};
use crate::traffic::{ChecksumErrors, Endpoint, limit, receive_file, send_file};
use crate::wait;

/// The bridge's port to the pod.
const PORT: &str = "pod1";
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes for datagrams that are not read yet.
const ROOM: usize = 4 << 20;
/// How long the next datagram may take.
const NEXT: Duration = Duration::from_millis(100);

/// A host and what runs on it. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Machine {
    running: Option<Running>,
    receiving: Option<JoinHandle<Result<Digest>>>,
    hearing: Option<UdpSocket>,
    host: Host,
}

#[derive(Debug)]
struct Running {
    daemon: Daemon,
    /// Nothing until the daemon is ready.
    node: Option<Node>,
}

/// The address of a machine's card.
pub(super) const fn address_of(side: Side) -> Ipv4Addr {
    Ipv4Addr::new(
        192,
        168,
        77,
        match side {
            Side::Near => 11,
            Side::Far => 12,
        },
    )
}

impl Machine {
    pub(super) fn new(side: Side) -> Result<Self> {
        let number = match side {
            Side::Near => 1,
            Side::Far => 2,
        };
        let host = Host::of_this_machine(number, address_of(side))?;
        Ok(Self { running: None, receiving: None, hearing: None, host })
    }

    /// The host itself.
    pub(super) const fn host(&self) -> &Host {
        &self.host
    }

    /// Its pod.
    pub(super) fn pod(&self) -> Result<&Endpoint> {
        let node = self.running()?.node.as_ref().context("flanneld was not ready")?;
        node.endpoints().next().context("there is no pod")
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("flanneld was not started")
    }

    fn run_shell(&self, line: &str) -> Result<String> {
        let output = self.host.namespace.command("sh")?.args(["-c", line]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{line} failed ({}): {}", output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn start(&mut self, endpoint: &str, flags: &[String]) -> Result<Ipv4Addr> {
        let settings =
            Settings { endpoint: endpoint.to_owned(), prefix: PREFIX.to_owned(), flags: flags.to_vec() };
        let daemon = Daemon::start(&self.host, settings)?;
        let Running { daemon, node } = self.running.insert(Running { daemon, node: None });
        let file = daemon.wait_ready()?;
        daemon.wait_attached(node.insert(Node::new(self.host.clone(), file, 1)?))?;
        Ok(self.pod()?.address)
    }

    fn stop(&mut self) -> Result<()> {
        // What is in the pod's namespace would keep it.
        self.hearing = None;
        self.receiving = None;
        let Some(Running { mut daemon, node }) = self.running.take() else { return Ok(()) };
        // While the pod's namespace is there: the kernel would take the port away some time after it.
        for device in [PORT, BRIDGE].into_iter().filter(|device| is_here(device)) {
            self.host.namespace.ip(&format!("link delete {device}"))?;
        }
        drop(node);
        daemon.terminate()?;
        let [file, state] = [daemon.subnet_file(), daemon.state_file()];
        daemon.ctl(&format!("down --subnet-file={} --state-file={}", file.display(), state.display()))?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let daemon = &mut self.running.as_mut().context("flanneld was not started")?.daemon;
        daemon.kill()?;
        daemon.restart()?;
        daemon.wait_ready().map(drop)
    }

    fn log(&self) -> Result<String> {
        let path = self.running()?.daemon.log();
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn listen(&mut self) -> Result<u16> {
        let pod = self.pod()?;
        let listener = pod.namespace.within(|| Ok(TcpListener::bind((pod.address, 0))?))?;
        let port = listener.local_addr()?.port();
        self.receiving = Some(thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            limit(&stream)?;
            let (bytes, sha256) = receive_file(stream)?;
            Ok(Digest { bytes, sha256 })
        }));
        Ok(port)
    }

    fn received(&mut self) -> Result<Digest> {
        let receiving = self.receiving.take().context("nothing is received")?;
        receiving.join().map_err(|_| anyhow!("the receiver panicked"))?.context("cannot receive")
    }

    fn send(&self, to: SocketAddrV4, bytes: u64) -> Result<Digest> {
        let connect = || Ok(TcpStream::connect_timeout(&SocketAddr::V4(to), wait::stretched(CONNECT))?);
        let stream =
            self.pod()?.namespace.within(connect).with_context(|| format!("no connection to {to}"))?;
        limit(&stream)?;
        Ok(Digest { bytes, sha256: send_file(stream, bytes).context("cannot send")? })
    }

    fn hear(&mut self) -> Result<u16> {
        let pod = self.pod()?;
        let socket = pod.namespace.within(|| Ok(UdpSocket::bind((pod.address, 0))?))?;
        // They are read when all are sent, and after XDP each takes a whole page.
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
        socket.set_read_timeout(Some(wait::stretched(NEXT)))?;
        let port = socket.local_addr()?.port();
        self.hearing = Some(socket);
        Ok(port)
    }

    fn heard(&self) -> Result<Vec<u8>> {
        let socket = self.hearing.as_ref().context("nothing is received")?;
        let (mut heard, mut buffer) = (Vec::new(), [0]);
        while socket.recv(&mut buffer).is_ok() {
            heard.extend(buffer);
        }
        Ok(heard)
    }
}

impl Obey for Machine {
    fn obey(&mut self, order: &Order) -> Result<Value> {
        match order {
            Order::Shell(line) => answer(self.run_shell(line)),
            Order::Start { endpoint, flags } => answer(self.start(endpoint, flags)),
            Order::Stop | Order::End => answer(self.stop()),
            Order::Restart => answer(self.restart()),
            Order::Ctl(arguments) => self.running()?.daemon.ctl_json(arguments),
            Order::Log => answer(self.log()),
            Order::ChecksumErrors => answer(ChecksumErrors::of(&[self.pod()?])),
            Order::Listen => answer(self.listen()),
            Order::Send { to, bytes } => answer(self.send(*to, *bytes)),
            Order::Received => answer(self.received()),
            Order::Hear => answer(self.hear()),
            Order::Heard => answer(self.heard()),
        }
    }
}

/// Whether the host has a device of that name.
fn is_here(device: &str) -> bool {
    Path::new("/sys/class/net").join(device).exists()
}

fn answer(value: Result<impl Serialize>) -> Result<Value> {
    Ok(serde_json::to_value(value?)?)
}
