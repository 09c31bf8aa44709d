//! The paths, set up side by side: each has two hosts of its own, and one etcd serves all.

use std::fmt::Debug;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

use super::path::{Carrier, Path, VXLAN};
use crate::cluster::check_reached;
use crate::daemon::{Daemon, Settings};
use crate::etcd::Etcd;
use crate::leases::Lease;
use crate::network::{Host, Network, Node, SubnetFile};
use crate::process::Process;
use crate::stock_udp::{self, StockUdpHost};
use crate::traffic::{Carriers, Endpoint};
use crate::vxlan_host::{self, VxlanHost};

/// A path that is there. Daemons are dropped before their hosts.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) path: Path,
    pub(super) from: Endpoint,
    pub(super) to: Endpoint,
    /// Who carries packets between the ends.
    pub(super) between: Carriers,
    pub(super) hosts: [Host; 2],
    /// Those that trace.
    tracers: Vec<Process>,
    daemons: Vec<Daemon>,
    /// What else must live as long as the path.
    _others: Box<dyn Debug>,
}

/// All of it. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) ways: Vec<Way>,
    _etcd: Etcd,
    _network: Network,
}

impl Lab {
    /// Sets the paths up, and returns when packets get through on every one.
    pub(super) fn new(paths: &[Path]) -> Result<Self> {
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        let numbers = (1_u8..).step_by(2);
        let ways = numbers.zip(paths).map(|(number, path)| {
            Way::new(&network, &etcd, number, *path).with_context(|| format!("path {}", path.name))
        });
        Ok(Self { ways: ways.collect::<Result<_>>()?, _etcd: etcd, _network: network })
    }

    /// Fails if a daemon has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        self.ways.iter_mut().try_for_each(|way| {
            way.daemons.iter_mut().try_for_each(Daemon::check_running)?;
            way.tracers.iter_mut().try_for_each(Process::check_running)
        })
    }
}

impl Way {
    fn new(network: &Network, etcd: &Etcd, number: u8, path: Path) -> Result<Self> {
        let hosts = Host::pair(network, number)?;
        let prefix = format!("/bench/{number}");
        let (mut daemons, mut proxies, mut tracers) = (Vec::new(), Vec::new(), Vec::new());
        let (others, ends): (Box<dyn Debug>, _) = match path.carrier {
            Carrier::Cable => (Box::new(()), hosts.each_ref().map(Host::endpoint)),
            Carrier::KernelVxlan { masquerades } => {
                let join = |index: u8| {
                    let file = subnet_file(index, vxlan_host::MTU)?;
                    VxlanHost::join(&hosts[usize::from(index)], etcd, &prefix, file, 1)
                };
                let both = [join(0)?, join(1)?];
                both.iter().try_for_each(|host| host.learn(etcd, &prefix))?;
                hosts.iter().try_for_each(add_stock_rules)?;
                if masquerades {
                    hosts
                        .iter()
                        .zip(&both)
                        .try_for_each(|(host, node)| add_masquerade(host, node.node.file))?;
                }
                let ends = both.each_ref().map(|host| pod(&host.node));
                (Box::new(both), ends)
            }
            Carrier::TunProxy => {
                let files = [subnet_file(0, stock_udp::MTU)?, subnet_file(1, stock_udp::MTU)?];
                // The first one starts with the peers that are known, and must know the second.
                Lease { subnet: files[1].subnet, public_ip: hosts[1].address, vtep_mac: None }
                    .write(etcd, &prefix)?;
                let join = |index: usize| StockUdpHost::join(&hosts[index], etcd, &prefix, files[index], 1);
                let both = [join(0)?, join(1)?];
                proxies.extend(both.iter().map(StockUdpHost::pid));
                hosts.iter().try_for_each(add_stock_rules)?;
                let ends = both.each_ref().map(|host| pod(&host.node));
                (Box::new(both), ends)
            }
            Carrier::Flanneld { backend, flags } => {
                let nodes = start(&mut daemons, etcd, &prefix, &hosts, backend, flags)?;
                let ends = nodes.each_ref().map(pod);
                (Box::new(nodes), ends)
            }
            Carrier::Traced { flags, trace } => {
                let nodes = start(&mut daemons, etcd, &prefix, &hosts, VXLAN, flags)?;
                for daemon in &daemons {
                    tracers.push(daemon.trace(trace)?);
                }
                proxies.extend(tracers.iter().map(Process::pid));
                let ends = nodes.each_ref().map(pod);
                (Box::new(nodes), ends)
            }
        };
        check_reached(&[(ends[0].clone(), ends[1].clone()), (ends[1].clone(), ends[0].clone())])?;
        let [from, to] = ends;
        let between = Carriers::new(&proxies)?;
        Ok(Self { path, from, to, between, hosts, tracers, daemons, _others: others })
    }
}

/// Starts a daemon on each host, and makes a pod behind each.
fn start(
    daemons: &mut Vec<Daemon>,
    etcd: &Etcd,
    prefix: &str,
    hosts: &[Host; 2],
    backend: &str,
    flags: &[&str],
) -> Result<[Node; 2]> {
    etcd.put(&format!("{prefix}/config"), &format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#))?;
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let settings = Settings { endpoint: etcd.url(), prefix: prefix.to_owned(), flags };
    for host in hosts {
        daemons.push(Daemon::start(host, settings.clone())?);
    }
    let mut node = |index: usize| Node::new(hosts[index].clone(), daemons[index].wait_ready()?, 1);
    Ok([node(0)?, node(1)?])
}

/// The rules both flannels make by default, which every forwarded packet meets.
fn add_stock_rules(host: &Host) -> Result<()> {
    for rule in [
        "-N FLANNEL-FWD",
        "-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment flanneld-forward -j ACCEPT",
        "-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment flanneld-forward -j ACCEPT",
        "-A FORWARD -m comment --comment flanneld-forward -j FLANNEL-FWD",
    ] {
        host.namespace.run("iptables", &format!("--wait {rule}"))?;
    }
    Ok(())
}

/// The rules of stock flannel 0.28 for `--ip-masq`.
fn add_masquerade(host: &Host, file: SubnetFile) -> Result<()> {
    let SubnetFile { network, subnet, .. } = file;
    for rule in [
        "-N FLANNEL-POSTRTG".to_owned(),
        "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN".to_owned(),
        format!("-A FLANNEL-POSTRTG -s {subnet} -d {network} -j RETURN"),
        format!("-A FLANNEL-POSTRTG -s {network} -d {subnet} -j RETURN"),
        format!("-A FLANNEL-POSTRTG ! -s {network} -d {subnet} -j RETURN"),
        format!("-A FLANNEL-POSTRTG -s {network} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully"),
        format!("-A FLANNEL-POSTRTG ! -s {network} -d {network} -j MASQUERADE --random-fully"),
        "-A POSTROUTING -j FLANNEL-POSTRTG".to_owned(),
    ] {
        host.namespace.run("iptables", &format!("--wait -t nat {rule}"))?;
    }
    Ok(())
}

/// The subnet of a host without a daemon.
fn subnet_file(index: u8, mtu: u32) -> Result<SubnetFile> {
    let [network, subnet] = [0, 10 + index].map(|third| Ipv4Addr::new(10, 5, third, 0));
    Ok(SubnetFile {
        network: Ipv4Network::new(network, 16)?,
        subnet: Ipv4Network::new(subnet, 24)?,
        bridge: Ipv4Addr::new(10, 5, 10 + index, 1),
        mtu,
        ip_masq: false,
    })
}

/// The node's only pod.
fn pod(node: &Node) -> Endpoint {
    node.endpoints().next().map_or_else(|| node.gateway(), Clone::clone)
}
