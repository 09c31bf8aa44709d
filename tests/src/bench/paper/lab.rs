//! The paths, set up side by side: each has two hosts of its own with dockerd, and one etcd serves all.

use anyhow::{Context as _, Result};

use super::Path;
use super::bound::Bound;
use crate::bench::datapath::Link;
use crate::containers::{Container, Dockerd, Engine as _, SiteHost};
use crate::etcd::Etcd;
use crate::network::{Host, Network};

/// A path that is there. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) path: Path,
    pub(super) bound: Bound,
    containers: [Container; 2],
    dockers: [Dockerd; 2],
    _daemons: Option<[SiteHost; 2]>,
}

/// All of it. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) ways: Vec<Way>,
    _etcd: Etcd,
    _network: Network,
}

/// Docker would translate what its containers send to those of other hosts.
const FLAGS: [&str; 1] = ["--ip-masq=true"];
/// The packets of a host with the link's own MTU.
const LINK_MTU: u32 = 1500;

impl Lab {
    /// Sets the paths up, and makes their links slow.
    pub(super) fn new(paths: &[Path]) -> Result<Self> {
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        let ways = (1_u8..).step_by(2).zip(paths).map(|(number, path)| {
            Way::new(&network, &etcd, number, *path).with_context(|| format!("path {}", path.name))
        });
        Ok(Self { ways: ways.collect::<Result<_>>()?, _etcd: etcd, _network: network })
    }

    /// Bits of payload per second on the path of that place.
    pub(super) fn measure(&self, place: usize, seconds: u32) -> Result<f64> {
        let way = self.ways.get(place).context("there is no such path")?;
        let ([from, to], [near, far]) = (&way.containers, &way.dockers);
        far.serve_iperf(to)?;
        near.iperf(from, to.endpoint.address, seconds).with_context(|| format!("path {}", way.path.name))
    }
}

impl Way {
    fn new(network: &Network, etcd: &Etcd, number: u8, path: Path) -> Result<Self> {
        let hosts = Host::pair(network, number)?;
        let (daemons, dockers, mtu) = match path.backend {
            None => {
                let [one, other] = &hosts;
                (None, [Dockerd::without_network(one)?, Dockerd::without_network(other)?], LINK_MTU)
            }
            Some(backend) => {
                let daemons = SiteHost::pair(
                    hosts.clone(),
                    etcd,
                    &format!("/paper/{number}"),
                    backend,
                    &FLAGS.map(str::to_owned),
                )?;
                let [one, other] = &daemons;
                let dockers = [one.docker(&[])?, other.docker(&[])?];
                let mtu = one.file.mtu;
                (Some(daemons), dockers, mtu)
            }
        };
        let containers = [dockers[0].run("sender")?, dockers[1].run("receiver")?];
        let ends = containers.each_ref().map(|container| &container.endpoint);
        Link::Slow.apply(&hosts, ends)?;
        Ok(Self { path, bound: Bound::of(mtu), containers, dockers, _daemons: daemons })
    }
}
