//! The accepted peers, found by whatever a new lease could collide with: none of the questions takes longer for
//! there being many.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use flannel_common::Mac;
use flannel_model::lease::SubnetKey;
use ipnetwork::Ipv4Network;

use super::Peer;
use crate::compact::compact;

#[derive(Debug, Default)]
pub(super) struct Index {
    peers: BTreeMap<SubnetKey, Peer>,
    by_subnet: BTreeMap<Ipv4Network, SubnetKey>,
    /// How many peers have each address.
    addresses: BTreeMap<Ipv4Addr, usize>,
    /// How many peers have each VTEP, and at which address.
    vteps: BTreeMap<(Mac, Ipv4Addr), usize>,
}

impl Index {
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Makes `peer` the one of `key`; returns the one before.
    pub(super) fn insert(&mut self, key: SubnetKey, peer: Peer) -> Option<Peer> {
        let before = self.remove(&key);
        self.by_subnet.insert(peer.subnet, key);
        *self.addresses.entry(peer.public_ip).or_default() += 1;
        if let Some(mac) = peer.vtep_mac {
            *self.vteps.entry((mac, peer.public_ip)).or_default() += 1;
        }
        self.peers.insert(key, peer);
        before
    }

    /// Takes no more memory than it needs.
    pub(super) fn compact(&mut self) {
        compact(&mut self.peers);
        compact(&mut self.by_subnet);
        compact(&mut self.addresses);
        compact(&mut self.vteps);
    }

    pub(super) fn remove(&mut self, key: &SubnetKey) -> Option<Peer> {
        let peer = self.peers.remove(key)?;
        self.by_subnet.remove(&peer.subnet);
        take_one(&mut self.addresses, &peer.public_ip);
        if let Some(mac) = peer.vtep_mac {
            take_one(&mut self.vteps, &(mac, peer.public_ip));
        }
        Some(peer)
    }

    /// The key under which `subnet` is leased.
    pub(super) fn holder(&self, subnet: Ipv4Network) -> Option<SubnetKey> {
        self.by_subnet.get(&subnet).copied()
    }

    /// The peer's subnet, `len` long as all of them are, in which `address` lies.
    pub(super) fn subnet_around(&self, address: Ipv4Addr, len: u8) -> Option<Ipv4Network> {
        let around = Ipv4Network::new(address, len).ok()?;
        let subnet = Ipv4Network::new(around.network(), len).ok()?;
        self.by_subnet.contains_key(&subnet).then_some(subnet)
    }

    /// A peer's address that lies in `subnet`.
    pub(super) fn address_in(&self, subnet: Ipv4Network) -> Option<Ipv4Addr> {
        self.addresses.range(subnet.network()..=subnet.broadcast()).next().map(|(address, _)| *address)
    }

    /// Whether another lease than that of `key` gives `mac` to another host than that of `public_ip`.
    pub(super) fn is_vtep_of_another(&self, mac: Mac, public_ip: Ipv4Addr, key: SubnetKey) -> bool {
        let own = self.peers.get(&key).filter(|peer| peer.vtep_mac == Some(mac)).map(|peer| peer.public_ip);
        let everywhere = (mac, Ipv4Addr::UNSPECIFIED)..=(mac, Ipv4Addr::BROADCAST);
        self.vteps.range(everywhere).any(|((_, address), leases)| {
            *address != public_ip && *leases > usize::from(own == Some(*address))
        })
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}
