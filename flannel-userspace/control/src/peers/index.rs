//! The accepted peers, found by whatever a new lease could collide with: none of the questions takes longer for
//! there being many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_common::Mac;
use flannel_model::config::cidr::masked;
use flannel_model::family::Family;
use flannel_model::lease::SubnetKey;
use flannel_model::vxlan::VxlanFormat;
use ipnetwork::IpNetwork;

use super::Peer;
use crate::compact::compact;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// One lease makes a peer of each family.
    peers: BTreeMap<(SubnetKey, Family), Peer>,
    by_subnet: BTreeMap<IpNetwork, SubnetKey>,
    /// How many peers have each address.
    addresses: BTreeMap<IpAddr, usize>,
    /// How many peers have each VTEP, and at which address.
    vteps: BTreeMap<(Mac, IpAddr), usize>,
}

impl Index {
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// What was heard of each.
    pub(super) fn heard_mut(&mut self) -> impl Iterator<Item = &mut Option<VxlanFormat>> {
        self.peers.values_mut().map(|peer| &mut peer.heard)
    }

    /// Notes the format in which the packets of a peer come; returns it before and after, if that is new.
    pub(super) fn hear(&mut self, subnet: IpNetwork, format: VxlanFormat) -> Option<(Peer, Peer)> {
        let key = self.holder(subnet)?;
        let peer = self.peers.get_mut(&(key, subnet.into()))?;
        let before = *peer;
        peer.heard = Some(format);
        (before != *peer).then_some((before, *peer))
    }

    /// The peer of `key` in that family.
    pub(super) fn peer(&self, key: SubnetKey, family: Family) -> Option<&Peer> {
        self.peers.get(&(key, family))
    }

    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Makes `peer` the one of `key` in its family; returns the one before.
    pub(super) fn insert(&mut self, key: SubnetKey, peer: Peer) -> Option<Peer> {
        let before = self.remove(key, peer.family());
        self.by_subnet.insert(peer.subnet, key);
        *self.addresses.entry(peer.public_ip).or_default() += 1;
        if let Some(mac) = peer.vtep_mac {
            *self.vteps.entry((mac, peer.public_ip)).or_default() += 1;
        }
        self.peers.insert((key, peer.family()), peer);
        before
    }

    /// Takes no more memory than it needs.
    pub(super) fn compact(&mut self) {
        compact(&mut self.peers);
        compact(&mut self.by_subnet);
        compact(&mut self.addresses);
        compact(&mut self.vteps);
    }

    pub(super) fn remove(&mut self, key: SubnetKey, family: Family) -> Option<Peer> {
        let peer = self.peers.remove(&(key, family))?;
        self.by_subnet.remove(&peer.subnet);
        take_one(&mut self.addresses, &peer.public_ip);
        if let Some(mac) = peer.vtep_mac {
            take_one(&mut self.vteps, &(mac, peer.public_ip));
        }
        Some(peer)
    }

    /// The key under which `subnet` is leased.
    pub(super) fn holder(&self, subnet: IpNetwork) -> Option<SubnetKey> {
        self.by_subnet.get(&subnet).copied()
    }

    /// The peer's subnet, `len` long as all of them are, in which `address` lies.
    pub(super) fn subnet_around(&self, address: IpAddr, len: u8) -> Option<IpNetwork> {
        let subnet = masked(IpNetwork::new(address, len).ok()?);
        self.by_subnet.contains_key(&subnet).then_some(subnet)
    }

    /// A peer's address that lies in `subnet`.
    pub(super) fn address_in(&self, subnet: IpNetwork) -> Option<IpAddr> {
        self.addresses.range(subnet.network()..=subnet.broadcast()).next().map(|(address, _)| *address)
    }

    /// Whether another lease than that of `key` gives `mac` to another host than that of `public_ip`, in its family.
    pub(super) fn is_vtep_of_another(&self, mac: Mac, public_ip: IpAddr, key: SubnetKey) -> bool {
        let family = Family::from(public_ip);
        let own = self.peers.get(&(key, family)).filter(|peer| peer.vtep_mac == Some(mac));
        let own = own.map(|peer| peer.public_ip);
        let (first, last) = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
            Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from_bits(u128::MAX).into()),
        };
        self.vteps.range((mac, first)..=(mac, last)).any(|((_, address), leases)| {
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
