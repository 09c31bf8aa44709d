//! The objects in the kernel by which a peer is reached. The wanted set of them is a function of the peers; what is in
//! the kernel is compared with it and corrected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_common::{Mac, Vni};
use ipnetwork::IpNetwork;

use crate::family::Family;
use crate::vxlan::VxlanFormat;

/// One object in the kernel. The order of the variants is the order in which they are put there, and the reverse of the
/// one in which they are removed: a route that attracts traffic comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// An entry of the neighbour table: `ip neighbour replace IP lladdr MAC dev … nud permanent`.
    Neighbour {
        /// Interface index.
        device: u32,
        /// Next hop.
        ip: IpAddr,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// An entry of a vxlan device's forwarding table: `bridge fdb replace MAC dev … dst VTEP self permanent`.
    Fdb {
        /// Interface index of the vxlan device.
        device: u32,
        /// Ethernet address of the remote VTEP.
        mac: Mac,
        /// Its underlay address.
        vtep: IpAddr,
        /// The network identifier that its packets bear, where it is not the device's.
        vni: Option<Vni>,
        /// The UDP port at which it takes them, where it is not the device's.
        port: Option<u16>,
    },
    /// An entry of the programs' table of peers.
    Peer {
        /// The subnet of the peer.
        subnet: IpNetwork,
        /// Its underlay address.
        public_ip: IpAddr,
        /// Ethernet address of its VTEP, zero where its lease names none.
        mac: Mac,
        /// Whether a route leads straight to it, so that no program sees its packets.
        direct: bool,
        /// In which format it takes packets of VXLAN, with that backend.
        format: Option<VxlanFormat>,
    },
    /// A route in the main table.
    Route {
        /// Destination.
        subnet: IpNetwork,
        /// Next hop; absent for a route to the device itself.
        via: Option<IpAddr>,
        /// Interface index.
        device: u32,
        /// Whether the next hop is taken to be on the device's link whatever the addresses say.
        onlink: bool,
    },
}

/// The first and the last of all addresses in their order.
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LAST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

impl Object {
    /// Which packets it is for.
    #[must_use]
    pub fn family(&self) -> Family {
        match *self {
            Self::Neighbour { ip, .. } => ip.into(),
            Self::Fdb { vtep, .. } => vtep.into(),
            Self::Peer { subnet, .. } | Self::Route { subnet, .. } => subnet.into(),
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Neighbour { .. } => "neighbour",
            Self::Fdb { .. } => "fdb",
            Self::Peer { .. } => "peer",
            Self::Route { .. } => "route",
        }
    }

    /// The first and the last of the objects, in their order, of which the kernel holds one at a time: the
    /// neighbours of one address, the forwarding entries of one Ethernet address, the entries and the routes of
    /// one subnet.
    #[must_use]
    pub fn place(&self) -> (Self, Self) {
        match *self {
            Self::Neighbour { device, ip, .. } => {
                let of = |mac| Self::Neighbour { device, ip, mac };
                (of(Mac::ZERO), of(Mac([0xff; 6])))
            }
            Self::Fdb { device, mac, .. } => {
                let of = |vtep, vni, port| Self::Fdb { device, mac, vtep, vni, port };
                (of(FIRST, None, None), of(LAST, Vni::new(Vni::MAX), Some(u16::MAX)))
            }
            Self::Peer { subnet, .. } => {
                let of =
                    |public_ip, mac, direct, format| Self::Peer { subnet, public_ip, mac, direct, format };
                let last = Vni::new(Vni::MAX).map(|vni| VxlanFormat { vni, port: u16::MAX });
                (of(FIRST, Mac::ZERO, false, None), of(LAST, Mac([0xff; 6]), true, last))
            }
            Self::Route { subnet, .. } => {
                let of = |via, device, onlink| Self::Route { subnet, via, device, onlink };
                (of(None, 0, false), of(Some(LAST), u32::MAX, true))
            }
        }
    }
}

/// Something changed in the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A neighbour, a forwarding entry or a route that has the marks of ours, or stands where one of ours should, is
    /// there or is gone.
    Object {
        /// The announced object. The Ethernet address of a neighbour that is gone may be zero.
        object: Object,
        /// Whether it is there.
        present: bool,
    },
    /// Another route is there or gone.
    Routes,
    /// A bridge learned or forgot a pod.
    BridgeFdb,
    /// The interface of this index came, went or changed, or an address or a qdisc of it did, or a program was taken
    /// off it.
    Interface(u32),
    /// A policy of IPsec came, went or changed.
    Policies,
    /// Changes were lost: there were too many at once.
    Overrun,
}
