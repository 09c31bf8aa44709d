//! A host that sends on what came out of the tunnel: a service's port on the far host, whose pod is on the near one.
//!
//! A client that is no peer connects to the far host, which has the connection go to the pod. What the pod sends comes
//! out of the tunnel there in super-packets, and goes out by the card again.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::Side;
use super::machine::address_of;
use super::noted::SUPER_PACKETS;
use super::order::Obey as _;
use super::pair::{FILE, Pair};
use crate::traffic::{limit, receive_file, send_file};

/// The client's address, which no lease names.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 21);
/// The service's port on the far host.
const SERVICE: u16 = 30080;
/// Sends a file by the service, and returns how many super-packets the far host has given its card meanwhile.
pub(super) fn relay(pair: &mut Pair) -> Result<usize> {
    let pod = pair.near().pod()?.clone();
    let listener = pod.namespace.within(|| Ok(TcpListener::bind((pod.address, 0))?))?;
    let target = SocketAddrV4::new(pod.address, listener.local_addr()?.port());
    pair.near_mut().shell(&format!("ip address replace {CLIENT}/24 dev eth0"))?;
    let rules = [
        format!("PREROUTING -p tcp --dport {SERVICE} -j DNAT --to-destination {target}"),
        format!("POSTROUTING -p tcp -d {} --dport {} -j MASQUERADE", target.ip(), target.port()),
    ];
    let far = pair.far_mut();
    for rule in &rules {
        far.shell(&format!("iptables -t nat -A {rule}"))?;
    }
    let outcome = SUPER_PACKETS.during(far, |_| download(&listener));
    for rule in &rules {
        far.shell(&format!("iptables -t nat -D {rule}"))?;
    }
    Ok(outcome?.1)
}

/// Has the pod send a file to the client, when it connects.
fn download(listener: &TcpListener) -> Result<()> {
    let client = client()?;
    let (server, _) = listener.accept()?;
    limit(&client)?;
    limit(&server)?;
    let sending = thread::spawn(move || send_file(server, FILE));
    let received = receive_file(client);
    let sent = sending.join().map_err(|_| anyhow!("the sender panicked"))?.context("cannot send")?;
    let (bytes, received) = received.context("cannot receive")?;
    ensure!((bytes, received) == (FILE, sent), "{bytes} of {FILE} bytes arrived, or others");
    Ok(())
}

/// A connection from the client's address to the service. The kernel completes it before anybody accepts it.
fn client() -> Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(CLIENT, 0)))?;
    let service = SocketAddrV4::new(address_of(Side::Far), SERVICE);
    connect(socket.as_raw_fd(), &SockaddrIn::from(service)).context("no connection to the service")?;
    Ok(TcpStream::from(socket))
}
