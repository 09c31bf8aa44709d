//! A network with one real host and thousands that are only leases.

use std::future::Future;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use etcd_client::{Client, PutOptions, Txn, TxnOp};
use ipnetwork::Ipv4Network;

use crate::etcd::Etcd;
use crate::leases::Lease;
use crate::network::{Host, HostOptions, Network, Place};

/// The network's prefix in etcd.
pub(super) const PREFIX: &str = "/coreos.com/network";
/// The real host's subnet is one of the last; the others count up from the first.
const CONFIG: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.250.0.0","Backend":{"Type":"vxlan"}}"#;
/// Leases written by one transaction.
const AT_ONCE: usize = 100;
/// Time to live of all leases, in seconds.
const DAY: i64 = 86_400;

/// etcd and the host on one segment.
pub(super) struct Lab {
    pub(super) network: Network,
    pub(super) etcd: Etcd,
    pub(super) host: Host,
}

impl Lab {
    pub(super) fn new() -> Result<Self> {
        let network = Network::new()?;
        let etcd = Etcd::on_network(&network)?;
        etcd.put(&format!("{PREFIX}/config"), CONFIG)?;
        let host = Host::new(&network, Place::Near, 1, HostOptions::default())?;
        Ok(Self { network, etcd, host })
    }
}

/// The leases of the other hosts, by their numbers.
#[derive(Clone)]
pub(super) struct Leases {
    url: String,
    network: Network,
}

/// First address of the subnet of the host with that number.
pub(super) fn subnet(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + (number << 8))
}

/// The lease of the host with that number, at its `turn`-th address.
pub(super) fn lease(number: u32, turn: u32) -> Result<(String, String)> {
    let [a, b, c, d] = (number << 4 | turn & 0xf).to_be_bytes();
    let lease = Lease {
        subnet: Ipv4Network::new(subnet(number), 24)?,
        // Behind the router; nobody is there, and nothing is sent.
        public_ip: Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + (number << 4 | turn & 0xf)),
        vtep_mac: Some(format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")),
    };
    Ok((lease.key(PREFIX), lease.value()))
}

impl Leases {
    pub(super) fn new(etcd: &Etcd, network: &Network) -> Self {
        Self { url: etcd.url(), network: network.clone() }
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
                    let (key, value) = lease(*number, 0)?;
                    Ok(TxnOp::put(key, value, Some(PutOptions::new().with_lease(term))))
                };
                let puts: Result<Vec<TxnOp>> = numbers.iter().map(put).collect();
                client.txn(Txn::new().and_then(puts?)).await?;
            }
            Ok(())
        })
    }
}
