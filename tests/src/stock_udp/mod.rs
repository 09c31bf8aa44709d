//! Stock flannel's UDP backend, written from its description for tests: a TUN device, and one thread that copies
//! packets between it and a UDP socket. It shares no code with the daemon.

mod proxy;
mod tun;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use clap::Parser;
use ipnetwork::Ipv4Network;

pub use proxy::run;

use crate::binaries;
use crate::claim::{self, Claim};
use crate::etcd::Etcd;
use crate::leases::{self, Lease};
use crate::network::{Host, Node, SubnetFile};
use crate::process::Process;
use crate::wait;

/// Stock flannel's name of the device.
pub const DEVICE: &str = "flannel0";
/// What the outer headers add, in bytes.
const OVERHEAD: u32 = 28;
/// The MTU of pods over a link of 1500 bytes.
pub const MTU: u32 = 1500 - OVERHEAD;
/// What the program prints when packets can come.
const READY: &str = "ready";

/// A TUN device whose packets travel as the payload of UDP, as by stock flannel's udp backend.
#[derive(Debug, Parser)]
#[command(name = "stock-udp")]
pub struct Options {
    /// The network of all subnets, routed to the device.
    #[arg(long)]
    pub network: Ipv4Network,
    /// Address of the device: the first of the own subnet.
    #[arg(long)]
    pub address: Ipv4Addr,
    /// Address to send from and receive at.
    #[arg(long)]
    pub public_ip: Ipv4Addr,
    /// Port to send from, receive at and send to.
    #[arg(long, default_value_t = 8285)]
    pub port: u16,
    /// MTU of the device; larger datagrams are cut off.
    #[arg(long, default_value_t = MTU)]
    pub mtu: u32,
    /// A peer's subnet and address, such as 10.5.18.0/24=192.168.77.11.
    #[arg(long = "peer", value_parser = peer)]
    pub peers: Vec<(Ipv4Network, Ipv4Addr)>,
}

fn peer(text: &str) -> Result<(Ipv4Network, Ipv4Addr)> {
    let (subnet, address) = text.split_once('=').context("no equals sign")?;
    Ok((subnet.parse()?, address.parse()?))
}

/// A host that runs this program.
#[derive(Debug)]
pub struct StockUdpHost {
    /// The host and its pods.
    pub node: Node,
    process: Process,
    _claim: Claim,
}

impl StockUdpHost {
    /// Writes the lease, starts the program for the peers whose leases stand in etcd now, and makes pods.
    ///
    /// # Errors
    /// The program does not start; namespaces cannot be made; etcd cannot be reached.
    pub fn join(host: &Host, etcd: &Etcd, prefix: &str, file: SubnetFile, pods: u8) -> Result<Self> {
        let peers = leases::list(etcd, prefix)?;
        Lease { subnet: file.subnet, public_ip: host.address, vtep_mac: None }.write(etcd, prefix)?;
        let mut command = host.namespace.command(binaries::find("stock-udp")?)?;
        command.arg(format!("--network={}", file.network));
        command.arg(format!("--address={}", file.subnet.network()));
        command.arg(format!("--public-ip={}", host.address));
        command.arg(format!("--mtu={}", file.mtu));
        command.args(peers.iter().map(|peer| format!("--peer={}={}", peer.subnet, peer.public_ip)));
        let (directory, claim) = claim::directory(&format!("{}-udp", host.label()))?;
        let mut process = Process::spawn("stock-udp", command, &directory.join("log"))?;
        wait::until("stock-udp to be ready", std::time::Duration::from_secs(10), || {
            if let Err(ended) = process.check_running() {
                return Ok(Err(ended));
            }
            process.log_tail(1).contains(READY).then_some(Ok(())).context("it has not said so")
        })??;
        let node = Node::new(host.clone(), file, pods)?;
        Ok(Self { node, process, _claim: claim })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
