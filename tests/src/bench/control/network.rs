//! A network with one real host and thousands that are only leases.

use std::future::Future;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use etcd_client::{Client, PutOptions, Txn, TxnOp};
use ipnetwork::Ipv4Network;

use crate::etcd::Etcd;
use crate::leases::Lease;
use crate::network::{Host, HostOptions, Network, Place};

/// The network's prefix in etcd.
pub(super) const PREFIX: &str = "/coreos.com/network";
/// Leases written by one transaction.
const AT_ONCE: usize = 100;
/// Time to live of all leases, in seconds.
const DAY: i64 = 86_400;

/// The backend of all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// VXLAN.
    Vxlan,
    /// UDP.
    Udp,
    /// Routes.
    HostGw,
}

impl Backend {
    /// The network's configuration. The real host's subnet is one of the last; the others count up from the first.
    fn config(self) -> String {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        format!(
            r#"{{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.250.0.0","Backend":{{"Type":"{name}"}}}}"#
        )
    }
}

/// etcd and the host on one segment.
pub(super) struct Lab {
    pub(super) network: Network,
    pub(super) etcd: Etcd,
    pub(super) host: Host,
}

impl Lab {
    pub(super) fn new(backend: Backend) -> Result<Self> {
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        etcd.put(&format!("{PREFIX}/config"), &backend.config())?;
        let host = Host::new(&network, Place::Near, 1, HostOptions::default())?;
        if backend == Backend::HostGw {
            // The other hosts' addresses are on the link then.
            host.namespace.ip("route add 172.16.0.0/12 dev eth0")?;
        }
        Ok(Self { network, etcd, host })
    }
}

/// The leases of the other hosts, by their numbers.
#[derive(Clone)]
pub(super) struct Leases {
    url: String,
    network: Network,
    backend: Backend,
}

/// First address of the subnet of the host with that number.
pub(super) fn subnet(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + (number << 8))
}

impl Leases {
    pub(super) fn new(lab: &Lab, backend: Backend) -> Self {
        Self { url: lab.etcd.url(), network: lab.network.clone(), backend }
    }

    /// Key and value of the lease of the host with that number, at its `turn`-th address.
    pub(super) fn lease(&self, number: u32, turn: u32) -> Result<(String, String)> {
        let host = number << 4 | turn & 0xf;
        let [a, b, c, d] = host.to_be_bytes();
        let is_vxlan = self.backend == Backend::Vxlan;
        let lease = Lease {
            subnet: Ipv4Network::new(subnet(number), 24)?,
            // Behind the router; nobody is there, and nothing is sent.
            public_ip: Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + host),
            vtep_mac: is_vxlan.then(|| format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")),
        };
        let value = lease.value();
        let value = match self.backend {
            Backend::HostGw => value.replace('}', r#","BackendType":"host-gw"}"#),
            Backend::Vxlan | Backend::Udp => value,
        };
        Ok((lease.key(PREFIX), value))
    }

    /// Runs `work` with a connection to etcd, in etcd's namespace.
    pub(super) fn connected<T, F, W>(&self, work: W) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
        W: FnOnce(Client) -> F + Send,
    {
        self.network.lan().within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = Client::connect([&self.url], None).await.context("cannot connect to etcd")?;
                work(client).await
            })
        })
    }

    /// Writes the leases of the first `count` hosts.
    pub(super) fn fill(&self, count: u32) -> Result<()> {
        self.connected(async |mut client: Client| {
            let term = client.lease_grant(DAY, None).await?.id();
            let numbers: Vec<u32> = (0..count).collect();
            for numbers in numbers.chunks(AT_ONCE) {
                let put = |number: &u32| {
                    let (key, value) = self.lease(*number, 0)?;
                    Ok(TxnOp::put(key, value, Some(PutOptions::new().with_lease(term))))
                };
                let puts: Result<Vec<TxnOp>> = numbers.iter().map(put).collect();
                client.txn(Txn::new().and_then(puts?)).await?;
            }
            Ok(())
        })
    }
}
