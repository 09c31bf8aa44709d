use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::family::PerFamily;
use flannel_model::lease::{
    Attributes, EtcdLeaseId, Event, Key, Lease, Rejected, Revision, Snapshot, SubnetKey,
};
use flannel_model::vxlan::{Announced, Formats, VxlanFormat};
use ipnetwork::IpNetwork;

use super::{Diff, FamilySite, Peer, PeerTable, Site};

mod admission;
mod conflicts;
mod formats;
mod history;
mod properties;

/// A value as stock flannel writes it with the VXLAN backend.
fn vxlan(public_ip: &str, mac: &str) -> String {
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    )
}

/// 10.5.1.0/24 of 10.5.0.0/16, on a link with the other hosts.
fn site(kind: Kind) -> Site {
    let format = VxlanFormat { vni: Vni::new(1).unwrap(), port: 8472 };
    let vtep = (Formats::only(format), "02:00:00:00:00:11".parse().unwrap());
    Site {
        families: PerFamily::only_v4(FamilySite {
            network: "10.5.0.0/16".parse().unwrap(),
            subnet_len: 24,
            subnet: "10.5.1.0/24".parse().unwrap(),
            vtep: (kind == Kind::Vxlan).then_some(vtep),
        }),
        addresses: vec!["192.168.77.11".parse().unwrap()],
        kind,
        connected: vec!["192.168.77.0/24".parse().unwrap()],
        reserved: Vec::new(),
    }
}

/// The same in another network, where the host leases another subnet.
fn in_network(site: Site, network: &str, subnet: &str) -> Site {
    let family = site.families.v4.unwrap();
    let subnet: IpNetwork = subnet.parse().unwrap();
    let (network, subnet_len) = (network.parse().unwrap(), subnet.prefix());
    Site { families: PerFamily::only_v4(FamilySite { network, subnet_len, subnet, ..family }), ..site }
}

/// A lease as it stands in etcd, by the name of its key and its value.
fn lease(key: &str, value: &str, created: i64, mod_revision: i64) -> Lease {
    let Key::Subnet(SubnetKey(subnets)) = Key::from_bytes(key.as_bytes()) else {
        panic!("{key} names no subnet")
    };
    Lease {
        subnets,
        attributes: Attributes::from_json(value.as_bytes()).unwrap(),
        mod_revision: Revision::new(mod_revision),
        created: Revision::new(created),
        term: EtcdLeaseId::from_id(7),
    }
}

fn junk(key: &str, mod_revision: i64) -> Rejected {
    Rejected {
        key: Key::from_bytes(key.as_bytes()),
        reason: "not a JSON object".to_owned(),
        mod_revision: Revision::new(mod_revision),
    }
}

fn put(key: &str, value: &str, revision: i64) -> Event {
    Event::Put(lease(key, value, revision, revision))
}

fn delete(key: &str, mod_revision: i64) -> Event {
    Event::Delete { key: Key::from_bytes(key.as_bytes()), mod_revision: Revision::new(mod_revision) }
}

fn snapshot(revision: i64, leases: &[Lease], rejected: &[Rejected]) -> Snapshot {
    let revision = Revision::new(revision);
    Snapshot { revision, leases: leases.to_vec(), rejected: rejected.to_vec(), ..Snapshot::default() }
}

fn peer(subnet: &str, public_ip: &str, mac: &str) -> Peer {
    let vtep_mac = (!mac.is_empty()).then(|| mac.parse::<Mac>().unwrap());
    let announced = Announced { vni: Vni::new(1).filter(|_| vtep_mac.is_some()), port: None };
    let (subnet, public_ip) = (subnet.parse().unwrap(), public_ip.parse().unwrap());
    Peer { subnet, public_ip, vtep_mac, announced, heard: None }
}

fn added(peer: Peer) -> Diff {
    Diff { added: vec![peer], ..Diff::default() }
}

fn changed(before: Peer, after: Peer) -> Diff {
    Diff { changed: vec![(before, after)], ..Diff::default() }
}

fn removed(peer: Peer) -> Diff {
    Diff { removed: vec![peer], ..Diff::default() }
}

/// The name of every refused key and the label of its refusal.
fn refused(table: &PeerTable) -> Vec<(String, &'static str)> {
    table.refused().map(|(key, refusal)| (key.to_string(), refusal.label())).collect()
}

fn peers(table: &PeerTable) -> Vec<Peer> {
    table.peers().copied().collect()
}
