//! Which leases become peers. A lease is written by another host, or by anybody who can write to the registry:
//! one that would misdirect packets of this host, or of its underlay, is refused.

use std::net::Ipv4Addr;

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::cidr;
use flannel_model::lease::{Data, Lease, SubnetKey, field};
use ipnetwork::Ipv4Network;
use serde_json::Value;

use super::Peer;
use super::index::Index;

/// What this host is, against which leases are held.
#[derive(Clone, Debug)]
pub struct Site {
    /// The whole network.
    pub network: Ipv4Network,
    /// Prefix length of every subnet of the network.
    pub subnet_len: u8,
    /// The subnet this host leases.
    pub subnet: Ipv4Network,
    /// The addresses by which other hosts know this one.
    pub addresses: Vec<Ipv4Addr>,
    /// How packets get from host to host.
    pub kind: Kind,
    /// Network identifier and Ethernet address of this host's VTEP; only with the VXLAN backend.
    pub vtep: Option<(Vni, Mac)>,
    /// The networks this host is connected to.
    pub connected: Vec<Ipv4Network>,
    /// Addresses no peer may draw to itself, such as etcd's.
    pub reserved: Vec<Ipv4Addr>,
}

/// Why a lease does not become a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key is no subnet's, or the value no lease.
    #[error("{0}")]
    Unreadable(String),
    /// Bits are set behind the prefix.
    #[error("{0} has host bits: the subnet would be {subnet}", subnet = cidr::masked(*.0))]
    HostBits(Ipv4Network),
    /// It is not part of the network.
    #[error("{subnet} is outside the network {network}")]
    OutsideNetwork {
        /// The leased subnet.
        subnet: Ipv4Network,
        /// The whole network.
        network: Ipv4Network,
    },
    /// It is larger or smaller than the subnets of the network.
    #[error("{subnet} is not as long as the subnets of this network, which are /{expected} (SubnetLen)")]
    Length {
        /// The leased subnet.
        subnet: Ipv4Network,
        /// What its length should be.
        expected: u8,
    },
    /// It is this host's own subnet, under another key.
    #[error("{0} overlaps this host's own subnet")]
    OwnSubnet(Ipv4Network),
    /// Packets that belong on this host's links would go to the peer.
    #[error("{subnet} overlaps {connected}, to which this host is connected")]
    Connected {
        /// The leased subnet.
        subnet: Ipv4Network,
        /// The network of one of the host's interfaces.
        connected: Ipv4Network,
    },
    /// Packets to an address this host depends on would go to the peer.
    #[error("{subnet} covers {address}, on which this host depends")]
    Reserved {
        /// The leased subnet.
        subnet: Ipv4Network,
        /// The address.
        address: Ipv4Addr,
    },
    /// Outer packets to a peer would go into the tunnel again.
    #[error("{subnet} covers {public_ip}, the PublicIP of a peer")]
    CoversPeer {
        /// A leased subnet, this host's or a peer's.
        subnet: Ipv4Network,
        /// Address of a peer.
        public_ip: Ipv4Addr,
    },
    /// No host has such an address.
    #[error("PublicIP {0} is no host's address")]
    NoHost(Ipv4Addr),
    /// It is this host's.
    #[error("PublicIP {0} is this host's own address")]
    OwnAddress(Ipv4Addr),
    /// The host runs another backend.
    #[error("BackendType {found} is not this network's, {expected}")]
    Backend {
        /// What the lease says; "none" where it says nothing.
        found: String,
        /// What it should say.
        expected: Kind,
    },
    /// The lease does not say which Ethernet address its VTEP has.
    #[error("BackendData names no VtepMAC that can be one interface's: {0}")]
    NoVtepMac(String),
    /// The VTEP is in another VXLAN network.
    #[error("BackendData says VNI {found}, this network's is {expected}")]
    Vni {
        /// What the lease says.
        found: String,
        /// What it should say.
        expected: Vni,
    },
    /// Two hosts cannot have the same.
    #[error("VtepMAC {0} is that of another host")]
    VtepMacTaken(Mac),
    /// Another key names the same IPv4 subnet.
    #[error("{0} is leased under another key, too")]
    SubnetTaken(Ipv4Network),
}

impl Refusal {
    /// The name used in metrics and in the log.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::HostBits(_) => "host_bits",
            Self::OutsideNetwork { .. } => "outside_network",
            Self::Length { .. } => "subnet_length",
            Self::OwnSubnet(_) => "own_subnet",
            Self::Connected { .. } => "connected_network",
            Self::Reserved { .. } => "reserved_address",
            Self::CoversPeer { .. } => "covers_peer",
            Self::NoHost(_) => "no_host_address",
            Self::OwnAddress(_) => "own_address",
            Self::Backend { .. } => "backend_type",
            Self::NoVtepMac(_) => "vtep_mac",
            Self::Vni { .. } => "vni",
            Self::VtepMacTaken(_) => "vtep_mac_taken",
            Self::SubnetTaken(_) => "subnet_taken",
        }
    }
}

/// The peer a lease makes, whichever others there are.
pub(super) fn peer_of(site: &Site, lease: &Lease) -> Result<Peer, Refusal> {
    let subnet = lease.subnet;
    let public_ip = lease.attributes.public_ip;
    check_subnet(site, subnet)?;
    check_address(site, public_ip)?;
    // Where the underlay is a part of the network, a subnet could draw outer packets to itself.
    if let Some(subnet) = [subnet, site.subnet].into_iter().find(|subnet| subnet.contains(public_ip)) {
        return Err(Refusal::CoversPeer { subnet, public_ip });
    }
    check_backend(site.kind, lease.attributes.backend_type.as_deref())?;
    let data = |of: &Lease| of.attributes.backend_data.as_ref().map(Data::value);
    let vtep_mac = site.vtep.map(|own| vtep_mac(own, data(lease).as_ref())).transpose()?;
    Ok(Peer { subnet, public_ip, vtep_mac })
}

/// Whether `peer` can be that of `key` next to those in `table`. A refusal may not last: the others change.
pub(super) fn check_against(table: &Index, key: SubnetKey, peer: &Peer) -> Result<(), Refusal> {
    let Peer { subnet, public_ip, vtep_mac } = *peer;
    if table.holder(subnet).is_some_and(|holder| holder != key) {
        return Err(Refusal::SubnetTaken(subnet));
    }
    if let Some(subnet) = table.subnet_around(public_ip, subnet.prefix()) {
        return Err(Refusal::CoversPeer { subnet, public_ip });
    }
    if let Some(public_ip) = table.address_in(subnet) {
        return Err(Refusal::CoversPeer { subnet, public_ip });
    }
    // One host may hold several subnets with its one VTEP.
    match vtep_mac.filter(|mac| table.is_vtep_of_another(*mac, public_ip, key)) {
        Some(mac) => Err(Refusal::VtepMacTaken(mac)),
        None => Ok(()),
    }
}

fn check_subnet(site: &Site, subnet: Ipv4Network) -> Result<(), Refusal> {
    if subnet.ip() != subnet.network() {
        return Err(Refusal::HostBits(subnet));
    }
    if !subnet.is_subnet_of(site.network) {
        return Err(Refusal::OutsideNetwork { subnet, network: site.network });
    }
    if subnet.prefix() != site.subnet_len {
        return Err(Refusal::Length { subnet, expected: site.subnet_len });
    }
    if subnet.overlaps(site.subnet) {
        return Err(Refusal::OwnSubnet(subnet));
    }
    // An operator may well have cut the whole network out of a larger one that this host is connected to.
    let is_larger = |connected: &Ipv4Network| {
        site.network.is_subnet_of(*connected) && connected.prefix() < site.network.prefix()
    };
    let mut connected = site.connected.iter().copied().filter(|connected| !is_larger(connected));
    if let Some(connected) = connected.find(|connected| connected.overlaps(subnet)) {
        return Err(Refusal::Connected { subnet, connected });
    }
    // An interface may have its address alone, without a network around it.
    let mut depended_on = site.reserved.iter().chain(&site.addresses).copied();
    match depended_on.find(|address| subnet.contains(*address)) {
        Some(address) => Err(Refusal::Reserved { subnet, address }),
        None => Ok(()),
    }
}

fn check_address(site: &Site, public_ip: Ipv4Addr) -> Result<(), Refusal> {
    if public_ip.octets()[0] == 0
        || public_ip.is_loopback()
        || public_ip.is_multicast()
        || public_ip.is_broadcast()
    {
        return Err(Refusal::NoHost(public_ip));
    }
    let is_broadcast = |network: &Ipv4Network| network.prefix() < 31 && network.broadcast() == public_ip;
    if site.connected.iter().any(is_broadcast) {
        return Err(Refusal::NoHost(public_ip));
    }
    if site.addresses.contains(&public_ip) {
        return Err(Refusal::OwnAddress(public_ip));
    }
    Ok(())
}

fn check_backend(kind: Kind, found: Option<&str>) -> Result<(), Refusal> {
    // Stock flannel's udp and alloc write no type; who writes theirs means the same.
    let fits = match found {
        Some(found) => found == kind.name(),
        None => kind.lease_type().is_none(),
    };
    if fits {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), flannel_model::config::json::excerpt);
    Err(Refusal::Backend { found, expected: kind })
}

/// The peer's VTEP. Stock flannel of 2017 wrote no VNI.
fn vtep_mac((vni, own_mac): (Vni, Mac), data: Option<&Value>) -> Result<Mac, Refusal> {
    let member = |name| data.and_then(Value::as_object).and_then(|object| field(object, name));
    let found = member("VtepMAC");
    let mac = found
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .filter(|mac: &Mac| mac.is_unicast())
        .ok_or_else(|| Refusal::NoVtepMac(described(found)))?;
    match member("VNI") {
        Some(found) if found.as_u64() != Some(vni.get().into()) => {
            Err(Refusal::Vni { found: described(Some(found)), expected: vni })
        }
        _ if mac == own_mac => Err(Refusal::VtepMacTaken(mac)),
        _ => Ok(mac),
    }
}

fn described(value: Option<&Value>) -> String {
    value.map_or_else(
        || "there is none".to_owned(),
        |value| flannel_model::config::json::excerpt(&value.to_string()),
    )
}
