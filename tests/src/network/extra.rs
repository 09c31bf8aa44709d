//! More links between hosts of the near segment: a second switch, and links without Ethernet headers.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Host, Network, link};
use crate::namespace::Namespace;

/// How often a relay looks whether it is to end, in milliseconds.
const LOOK: u8 = 50;
/// Longest packet of a TUN device.
const LONGEST: usize = 1 << 16;

/// The address of `host` on the extra link of that number.
#[must_use]
pub const fn address(host: &Host, link: u8) -> Ipv4Addr {
    let [a, b, _, last] = host.address.octets();
    Ipv4Addr::new(a, b, link, last)
}

/// Joins hosts by a second switch, each by an interface `eth<link>` with the address of [`address`].
///
/// # Errors
/// Interfaces cannot be made.
pub fn switch(network: &Network, hosts: &[&Host], link: u8) -> Result<()> {
    let (lan, bridge) = (network.lan(), format!("lan{link}"));
    link::add_bridge(lan, &bridge)?;
    lan.ip(&format!("link set {bridge} up"))?;
    hosts.iter().try_for_each(|host| plug_in(network, host, link))
}

/// Joins another host by the switch of that link.
///
/// # Errors
/// Its interface cannot be made.
pub fn plug_in(network: &Network, host: &Host, link: u8) -> Result<()> {
    let (interface, port) = (format!("eth{link}"), format!("{}-{link}", host.name));
    link::cable(&host.namespace, &interface, network.lan(), &port, None)?;
    network.lan().ip(&format!("link set {port} master lan{link} up"))?;
    host.namespace.ip(&format!("address add {}/24 dev {interface}", address(host, link)))?;
    host.namespace.ip(&format!("link set {interface} up"))?;
    Ok(())
}

/// Two hosts joined by a TUN device each, whose packets have no Ethernet header. It ends with this value.
#[derive(Debug)]
pub struct Tun {
    ends: Arc<AtomicBool>,
    relays: Vec<JoinHandle<()>>,
}

impl Tun {
    /// Joins the hosts by devices called `tun0`, with the addresses of [`address`].
    ///
    /// # Errors
    /// This kernel makes no TUN devices.
    pub fn join(one: &Host, other: &Host, link: u8) -> Result<Self> {
        let (first, second) = (open(&one.namespace)?, open(&other.namespace)?);
        for host in [one, other] {
            host.namespace.ip(&format!("address add {}/24 dev tun0", address(host, link)))?;
            host.namespace.ip("link set tun0 mtu 1500 up")?;
        }
        let ends = Arc::new(AtomicBool::new(false));
        let pairs = [(first.try_clone()?, second.try_clone()?), (second, first)];
        let relay = |(from, to): (File, File)| {
            let ends = Arc::clone(&ends);
            thread::spawn(move || relay(from, to, &ends))
        };
        let relays = pairs.map(relay).into();
        Ok(Self { ends, relays })
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for relay in self.relays.drain(..) {
            // One that has panicked has ended, too.
            let _ = relay.join();
        }
    }
}

/// Makes `tun0` in a namespace.
fn open(namespace: &Namespace) -> Result<File> {
    namespace.within(|| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        // SAFETY: any bytes are a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: the file is a TUN device, and the request is one.
        let code = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if code != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot make a TUN device");
        }
        Ok(file)
    })
}

fn relay(mut from: File, mut to: File, ends: &AtomicBool) {
    let mut packet = vec![0; LONGEST];
    while !ends.load(Ordering::Relaxed) {
        match from.read(&mut packet) {
            // A link loses what its receiver does not take.
            Ok(length) => drop(to.write(&packet[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut readable = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
                // Interrupted or not, it looks again.
                let _ = poll(&mut readable, PollTimeout::from(LOOK));
            }
            // The device is down, or gone with its namespace.
            Err(_) => thread::sleep(std::time::Duration::from_millis(LOOK.into())),
        }
    }
}
