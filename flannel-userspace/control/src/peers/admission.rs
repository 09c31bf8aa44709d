//! Which leases become peers. A lease is written by another host, or by anybody who can write to the registry:
//! one that would misdirect packets of this host, or of its underlay, is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::cidr::{self, is_subnet_of, overlap};
use flannel_model::family::{Family, PerFamily};
use flannel_model::lease::{Data, Lease, SubnetKey, field};
use flannel_model::vxlan::{Announced, Formats};
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::Peer;
use super::index::Index;

/// This host, against which leases are checked.
#[derive(Clone, Debug)]
pub struct Site {
    /// The families that are served.
    pub families: PerFamily<FamilySite>,
    /// The addresses by which other hosts know this one.
    pub addresses: Vec<IpAddr>,
    /// How packets get from host to host.
    pub kind: Kind,
    /// The networks this host is connected to.
    pub connected: Vec<IpNetwork>,
    /// Addresses no peer may draw to itself, such as etcd's.
    pub reserved: Vec<IpAddr>,
}

/// What this host is in the network of one family.
#[derive(Clone, Copy, Debug)]
pub struct FamilySite {
    /// The whole network.
    pub network: IpNetwork,
    /// Prefix length of every subnet of the network.
    pub subnet_len: u8,
    /// The subnet this host leases.
    pub subnet: IpNetwork,
    /// Formats of packets and Ethernet address of this host's VTEP; only with the VXLAN backend.
    pub vtep: Option<(Formats, Mac)>,
}

/// Why a lease does not become a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key names no subnet, or the value is no lease.
    #[error("{0}")]
    Unreadable(String),
    /// Bits are set behind the prefix.
    #[error("{0} has host bits: the subnet would be {subnet}", subnet = cidr::masked(*.0))]
    HostBits(IpNetwork),
    /// It is not part of the network.
    #[error("{subnet} is outside the network {network}")]
    OutsideNetwork {
        /// The leased subnet.
        subnet: IpNetwork,
        /// The whole network.
        network: IpNetwork,
    },
    /// It names no subnet of a family that is served.
    #[error("{0} names no subnet of an IP version that this network has")]
    OtherFamily(SubnetKey),
    /// It is larger or smaller than the subnets of the network.
    #[error("{subnet} is not as long as the subnets of this network, which are /{expected} (SubnetLen)")]
    Length {
        /// The leased subnet.
        subnet: IpNetwork,
        /// What its length should be.
        expected: u8,
    },
    /// It is this host's own subnet, under another key.
    #[error("{0} overlaps this host's own subnet")]
    OwnSubnet(IpNetwork),
    /// Packets that belong on this host's links would go to the peer.
    #[error("{subnet} overlaps {connected}, to which this host is connected")]
    Connected {
        /// The leased subnet.
        subnet: IpNetwork,
        /// The network of one of the host's interfaces.
        connected: IpNetwork,
    },
    /// Packets to an address this host depends on would go to the peer.
    #[error("{subnet} covers {address}, on which this host depends")]
    Reserved {
        /// The leased subnet.
        subnet: IpNetwork,
        /// The address.
        address: IpAddr,
    },
    /// Outer packets to a peer would go into the tunnel again.
    #[error("{subnet} covers {public_ip}, the PublicIP of a peer")]
    CoversPeer {
        /// A leased subnet, this host's or a peer's.
        subnet: IpNetwork,
        /// Address of a peer.
        public_ip: IpAddr,
    },
    /// No host has such an address.
    #[error("PublicIP {0} is no host's address")]
    NoHost(IpAddr),
    /// It is this host's.
    #[error("PublicIP {0} is this host's own address")]
    OwnAddress(IpAddr),
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
    /// Another key names the same subnet.
    #[error("{0} is leased under another key, too")]
    SubnetTaken(IpNetwork),
}

impl Refusal {
    /// The name used in metrics and in the log.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::HostBits(_) => "host_bits",
            Self::OutsideNetwork { .. } | Self::OtherFamily(_) => "outside_network",
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

/// The peers a lease makes, whichever others there are: one for each family that is served and that it has a subnet of.
pub(super) fn peers_of(site: &Site, lease: &Lease) -> PerFamily<Result<Peer, Refusal>> {
    let peer = |family| {
        let (own, subnet) = (site.families.get(family)?, lease.subnets.get(family)?);
        Some(peer_of(site, own, lease, subnet))
    };
    PerFamily { v4: peer(Family::V4), v6: peer(Family::V6) }
}

fn peer_of(site: &Site, own: &FamilySite, lease: &Lease, subnet: IpNetwork) -> Result<Peer, Refusal> {
    let family = subnet.into();
    check_subnet(site, own, subnet)?;
    let public_ip = lease.attributes.public.get(family).unwrap_or_else(|| unspecified(family));
    check_address(site, public_ip)?;
    // Where the underlay is a part of the network, a subnet could draw outer packets to itself.
    if let Some(subnet) = [subnet, own.subnet].into_iter().find(|subnet| subnet.contains(public_ip)) {
        return Err(Refusal::CoversPeer { subnet, public_ip });
    }
    check_backend(site.kind, lease.attributes.backend_type.as_deref())?;
    let data = |of: &Lease| of.attributes.backend_data.get(family).map(Data::value);
    let Some(own) = own.vtep else {
        return Ok(Peer { subnet, public_ip, vtep_mac: None, announced: Announced::default(), heard: None });
    };
    let (mac, announced) = vtep(own, data(lease).as_ref())?;
    Ok(Peer { subnet, public_ip, vtep_mac: Some(mac), announced, heard: None })
}

/// What a lease bears where it has no address of that family.
const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Whether `peer` can be that of `key` next to those in `table`. A refusal may not last: the others change.
pub(super) fn check_against(table: &Index, key: SubnetKey, peer: &Peer) -> Result<(), Refusal> {
    let Peer { subnet, public_ip, vtep_mac, .. } = *peer;
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

fn check_subnet(site: &Site, own: &FamilySite, subnet: IpNetwork) -> Result<(), Refusal> {
    if subnet.ip() != subnet.network() {
        return Err(Refusal::HostBits(subnet));
    }
    if !is_subnet_of(subnet, own.network) {
        return Err(Refusal::OutsideNetwork { subnet, network: own.network });
    }
    if subnet.prefix() != own.subnet_len {
        return Err(Refusal::Length { subnet, expected: own.subnet_len });
    }
    if overlap(subnet, own.subnet) {
        return Err(Refusal::OwnSubnet(subnet));
    }
    // An operator may well have cut the whole network out of one that this host is connected to, or have taken all of
    // it: the routes to peers are longer.
    let is_larger =
        |connected: &IpNetwork| is_subnet_of(own.network, *connected) && connected.prefix() < own.subnet_len;
    let mut connected = site.connected.iter().copied().filter(|connected| !is_larger(connected));
    if let Some(connected) = connected.find(|connected| overlap(*connected, subnet)) {
        return Err(Refusal::Connected { subnet, connected });
    }
    // An interface may have its address alone, without a network around it.
    let mut depended_on = site.reserved.iter().chain(&site.addresses).copied();
    match depended_on.find(|address| subnet.contains(*address)) {
        Some(address) => Err(Refusal::Reserved { subnet, address }),
        None => Ok(()),
    }
}

fn check_address(site: &Site, public_ip: IpAddr) -> Result<(), Refusal> {
    if is_reserved(public_ip) {
        return Err(Refusal::NoHost(public_ip));
    }
    // IPv6 has no broadcast.
    let is_broadcast =
        |network: &IpNetwork| network.is_ipv4() && network.prefix() < 31 && network.broadcast() == public_ip;
    if site.connected.iter().any(is_broadcast) {
        return Err(Refusal::NoHost(public_ip));
    }
    if site.addresses.contains(&public_ip) {
        return Err(Refusal::OwnAddress(public_ip));
    }
    Ok(())
}

/// Whether no host can have this address towards others (RFC 1122, 3.2.1.3; RFC 4291, 2.5 to 2.7).
fn is_reserved(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    is_special || matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.is_broadcast())
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

/// The peer's VTEP, and what it says of the format of its packets. Stock flannel of 2017 wrote no VNI, none writes a port.
fn vtep((formats, own_mac): (Formats, Mac), data: Option<&Value>) -> Result<(Mac, Announced), Refusal> {
    let member = |name| data.and_then(Value::as_object).and_then(|object| field(object, name));
    let found = member("VtepMAC");
    let mac = found
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .filter(|mac: &Mac| mac.is_unicast())
        .ok_or_else(|| Refusal::NoVtepMac(described(found)))?;
    let number = |found: &Value| found.as_u64().and_then(|number| u32::try_from(number).ok());
    let vni = match member("VNI") {
        Some(found) => {
            let vni = number(found).and_then(Vni::new).filter(|vni| formats.have(*vni));
            let refusal = || Refusal::Vni { found: described(Some(found)), expected: formats.present.vni };
            Some(vni.ok_or_else(refusal)?)
        }
        None => None,
    };
    if mac == own_mac {
        return Err(Refusal::VtepMacTaken(mac));
    }
    let port = member("Port").and_then(number).and_then(|port| u16::try_from(port).ok());
    Ok((mac, Announced { vni, port: port.filter(|port| *port != 0) }))
}

fn described(value: Option<&Value>) -> String {
    value.map_or_else(
        || "there is none".to_owned(),
        |value| flannel_model::config::json::excerpt(&value.to_string()),
    )
}
