//! The table of peers, with arbitrary leases in arbitrary order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use flannel_common::{Mac, Vni};
use flannel_control::peers::{Diff, FamilySite, Peer, PeerTable, Site};
use flannel_model::backend::Kind;
use flannel_model::config::cidr::{is_subnet_of, overlap};
use flannel_model::family::PerFamily;
use flannel_model::lease::{
    Attributes, EtcdLeaseId, Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey,
};
use flannel_model::vxlan::{Formats, VxlanFormat};
use ipnetwork::IpNetwork;

use crate::limit::{fits_the_log, timed};

/// Reads the lines of `input` as the registry's answers, with every kind of backend:
///
/// - `+ KEY REVISION VALUE`: a key is written
/// - `- KEY REVISION`: it is deleted
/// - `= REVISION`: all that was written and not deleted so far is listed
///
/// Other lines say nothing.
///
/// # Errors
/// A peer is in the table that would misdirect packets, or a reader of differences has other peers than the table, or a
/// listing applied twice changes something, or a refusal does not fit the log.
pub fn check(input: &[u8]) -> Result<()> {
    let lines: Vec<Line> = input.split(|byte| *byte == b'\n').filter_map(Line::read).collect();
    for kind in Kind::ALL {
        let (mut hosts, mut content) = (Hosts::new(kind)?, Content::default());
        for line in &lines {
            match line {
                Line::Event(event) => {
                    content.take(event);
                    hosts.tell(event)?;
                }
                Line::Listing(revision) => hosts.list(&content.listing(*revision))?,
            }
        }
    }
    Ok(())
}

enum Line {
    Event(Event),
    Listing(Revision),
}

impl Line {
    fn read(line: &[u8]) -> Option<Self> {
        let parts: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
        let number = |text| Some(Revision::new(std::str::from_utf8(text).ok()?.parse().ok()?));
        match parts.as_slice() {
            [b"+", key, revision, value] => Some(Self::Event(written(key, number(revision)?, value))),
            [b"-", key, revision] => {
                let (key, mod_revision) = (Key::from_bytes(key), number(revision)?);
                Some(Self::Event(Event::Delete { key, mod_revision }))
            }
            [b"=", revision] => number(revision).map(Self::Listing),
            _ => None,
        }
    }
}

/// What the registry reports of a key with this value.
fn written(name: &[u8], mod_revision: Revision, value: &[u8]) -> Event {
    let key = Key::from_bytes(name);
    let (SubnetKey(subnets), attributes) = match (&key, Attributes::from_json(value)) {
        (Key::Subnet(subnet), Ok(attributes)) => (*subnet, attributes),
        (_, outcome) => {
            let reason = outcome.err().map_or_else(|| "no subnet".to_owned(), |error| error.to_string());
            return Event::Rejected(Rejected { key, reason, mod_revision });
        }
    };
    Event::Put(Lease {
        subnets,
        attributes,
        mod_revision,
        created: mod_revision,
        term: EtcdLeaseId::from_id(mod_revision.number()),
    })
}

/// What stands in the registry.
#[derive(Default)]
struct Content(BTreeMap<Key, Event>);

impl Content {
    fn take(&mut self, event: &Event) {
        let (key, mut event) = (event.key(), event.clone());
        if let (Event::Put(lease), Some(Event::Put(before))) = (&mut event, self.0.get(&key)) {
            lease.created = before.created;
        }
        self.0.insert(key, event);
    }

    fn listing(&self, revision: Revision) -> Snapshot {
        let mut listing = Snapshot { revision, ..Snapshot::default() };
        for event in self.0.values() {
            match event {
                Event::Put(lease) => listing.leases.push(lease.clone()),
                Event::Rejected(rejected) => listing.rejected.push(rejected.clone()),
                Event::Delete { .. } => {}
            }
        }
        listing
    }
}

/// A table of peers, and one who knows it by its differences alone.
pub struct Hosts {
    site: Site,
    table: PeerTable,
    reader: BTreeMap<IpNetwork, Peer>,
}

impl Hosts {
    /// A host without peers.
    ///
    /// # Errors
    /// None.
    pub fn new(kind: Kind) -> Result<Self> {
        let format = VxlanFormat { vni: Vni::new(1).context("1 is a VNI")?, port: 8472 };
        let vtep = (Formats::only(format), Mac([2, 0, 0, 0, 0, 0x11]));
        let site = Site {
            families: PerFamily::only_v4(FamilySite {
                network: "10.5.0.0/16".parse()?,
                subnet_len: 24,
                subnet: "10.5.1.0/24".parse()?,
                vtep: (kind == Kind::Vxlan).then_some(vtep),
            }),
            addresses: vec![Ipv4Addr::new(192, 168, 77, 11).into()],
            kind,
            connected: vec!["192.168.77.0/24".parse()?, "10.5.8.0/23".parse()?],
            reserved: vec![Ipv4Addr::new(10, 5, 7, 7).into()],
        };
        Ok(Self { table: PeerTable::new(site.clone()), site, reader: BTreeMap::new() })
    }

    fn tell(&mut self, event: &Event) -> Result<()> {
        let diff = timed(|| self.table.apply_event(event))?;
        self.read(diff)?;
        self.check()
    }

    /// Tells a listing, twice.
    ///
    /// # Errors
    /// Something does not hold afterwards.
    pub fn list(&mut self, listing: &Snapshot) -> Result<()> {
        let diff = timed(|| self.table.apply_snapshot(listing))?;
        self.read(diff)?;
        let again = self.table.apply_snapshot(listing);
        ensure!(again.is_empty(), "the same listing told again tells {again:?}");
        self.check()
    }

    fn read(&mut self, diff: Diff) -> Result<()> {
        for peer in diff.removed {
            ensure!(self.reader.remove(&peer.subnet) == Some(peer), "removed what was not there: {peer:?}");
        }
        for (before, after) in diff.changed {
            ensure!(before != after, "unchanged: {after:?}");
            let known = self.reader.insert(after.subnet, after);
            ensure!(known == Some(before), "changed from {before:?}, which was {known:?}");
        }
        for peer in diff.added {
            ensure!(self.reader.insert(peer.subnet, peer).is_none(), "added what was there: {peer:?}");
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let peers: BTreeMap<_, _> = self.table.peers().map(|peer| (peer.subnet, *peer)).collect();
        ensure!(peers == self.reader, "the differences tell {:?}, not {peers:?}", self.reader);
        ensure!(self.table.peers().count() == peers.len(), "two peers have one subnet: {peers:?}");
        for peer in peers.values() {
            self.check_subnet(peer.subnet)?;
            self.check_address(peer.public_ip)?;
        }
        let vteps: BTreeSet<_> =
            peers.values().filter_map(|peer| Some((peer.vtep_mac?, peer.public_ip))).collect();
        let macs: BTreeSet<Mac> = vteps.iter().map(|(mac, _)| *mac).collect();
        ensure!(macs.len() == vteps.len(), "two hosts have one VTEP: {vteps:?}");
        ensure!(macs.iter().all(|mac| mac.is_unicast()), "no interface's address: {macs:?}");
        let with_vtep = peers.values().filter(|peer| peer.vtep_mac.is_some()).count();
        ensure!(with_vtep == if self.site.kind == Kind::Vxlan { peers.len() } else { 0 }, "{peers:?}");
        for (key, refusal) in self.table.refused() {
            fits_the_log(&key.to_string())?;
            fits_the_log(&refusal.to_string())?;
        }
        Ok(())
    }

    fn check_subnet(&self, subnet: IpNetwork) -> Result<()> {
        let Site { families, addresses, connected, reserved, .. } = &self.site;
        let family = families.get(subnet.into()).context("a peer of a family that is not served")?;
        let FamilySite { network, subnet_len, subnet: own, .. } = family;
        ensure!(is_subnet_of(subnet, *network) && subnet.prefix() == *subnet_len, "{subnet} is no subnet");
        ensure!(subnet.ip() == subnet.network(), "{subnet} has host bits");
        for taken in connected.iter().chain([own]) {
            ensure!(!overlap(subnet, *taken), "{subnet} overlaps {taken}");
        }
        for address in reserved.iter().chain(addresses) {
            ensure!(!subnet.contains(*address), "{subnet} covers {address}");
        }
        Ok(())
    }

    /// Packets to this address leave the host by its underlay.
    fn check_address(&self, address: IpAddr) -> Result<()> {
        let own = self.site.families.values().map(|family| &family.subnet);
        let covering = self.reader.keys().chain(own).find(|subnet| subnet.contains(address));
        ensure!(covering.is_none(), "{covering:?} covers the peer {address}");
        ensure!(!self.site.addresses.contains(&address), "the own address is a peer's");
        let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        ensure!(!address.is_loopback() && !address.is_multicast() && !is_broadcast, "{address}");
        Ok(())
    }
}
