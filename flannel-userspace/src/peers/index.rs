//! The accepted peers, found by whatever a new lease could collide with: none of the questions takes longer for
//! there being many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use flannel_common::Mac;
use ipnetwork::Ipv4Network;

use super::Peer;
use crate::registry::SubnetKey;

#[derive(Debug, Default)]
pub(super) struct Index {
    peers: BTreeMap<SubnetKey, Peer>,
    by_subnet: BTreeMap<Ipv4Network, SubnetKey>,
    by_address: BTreeMap<Ipv4Addr, BTreeSet<SubnetKey>>,
    by_mac: BTreeMap<Mac, BTreeSet<SubnetKey>>,
}

impl Index {
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Makes `peer` the one of `key`; returns the one before.
    pub(super) fn insert(&mut self, key: SubnetKey, peer: Peer) -> Option<Peer> {
        let before = self.remove(&key);
        self.by_subnet.insert(peer.subnet, key);
        self.by_address.entry(peer.public_ip).or_default().insert(key);
        if let Some(mac) = peer.vtep_mac {
            self.by_mac.entry(mac).or_default().insert(key);
        }
        self.peers.insert(key, peer);
        before
    }

    pub(super) fn remove(&mut self, key: &SubnetKey) -> Option<Peer> {
        let peer = self.peers.remove(key)?;
        self.by_subnet.remove(&peer.subnet);
        take_out(&mut self.by_address, &peer.public_ip, key);
        if let Some(mac) = &peer.vtep_mac {
            take_out(&mut self.by_mac, mac, key);
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
        self.by_address.range(subnet.network()..=subnet.broadcast()).next().map(|(address, _)| *address)
    }

    /// Whether another lease than that of `key` gives `mac` to another host than that of `public_ip`. As this
    /// is asked of every peer before it gets in, the leases with one Ethernet address are all of one host.
    pub(super) fn is_vtep_of_another(&self, mac: Mac, public_ip: Ipv4Addr, key: SubnetKey) -> bool {
        let other = self.by_mac.get(&mac).into_iter().flatten().find(|other| **other != key);
        other.and_then(|other| self.peers.get(other)).is_some_and(|other| other.public_ip != public_ip)
    }
}

fn take_out<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<SubnetKey>>, of: &K, key: &SubnetKey) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}
