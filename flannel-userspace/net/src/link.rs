//! Interfaces as the kernel describes them.

use std::net::IpAddr;

use flannel_common::Mac;
use futures::TryStreamExt;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{During, Error, Netlink, bulk};

/// An interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Largest packet it carries, in bytes, without the link's own header.
    pub mtu: u32,
    /// Ethernet address; zero where it has none.
    pub mac: Mac,
    /// State and properties, `IFF_*`.
    pub flags: LinkFlags,
    /// Index of the bridge, bond or VRF it is a port of.
    pub controller: Option<u32>,
    /// Whether it is one end of a pair whose other end is in another network namespace.
    pub peer_in_other_netns: bool,
    /// What it is.
    pub kind: Kind,
    /// Whether its packets have Ethernet headers (`ARPHRD_ETHER`).
    pub has_ethernet: bool,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A VXLAN tunnel endpoint.
    Vxlan(Vxlan),
    /// A bridge.
    Bridge,
    /// Another virtual device, by the kernel's name of its kind.
    Other(String),
    /// A device without a kind, such as a network card.
    Unstated,
}

/// The parameters of a vxlan device that cannot be changed once it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// Index of the interface the tunnel runs over.
    pub underlay: Option<u32>,
    /// Remote address or multicast group for frames without an entry in the forwarding table.
    pub group: Option<IpAddr>,
    /// Whether addresses are learned from received frames.
    pub learning: bool,
    /// Whether misses in the forwarding table are announced over netlink.
    pub l2miss: bool,
    /// Whether misses in the neighbour table are announced over netlink.
    pub l3miss: bool,
    /// Whether the group policy extension is spoken.
    pub gbp: bool,
    /// Whether routes instead of the device say where frames go.
    pub external: bool,
}

impl Link {
    /// Whether it was brought up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    /// Whether it is a VRF.
    #[must_use]
    pub fn is_vrf(&self) -> bool {
        matches!(&self.kind, Kind::Other(kind) if kind == "vrf")
    }

    fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            mac: Mac::ZERO,
            flags: message.header.flags,
            controller: None,
            peer_in_other_netns: false,
            kind: Kind::Unstated,
            has_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) => link.mac = address.try_into().map_or(Mac::ZERO, Mac),
                LinkAttribute::Controller(index) => link.controller = Some(index).filter(|index| *index != 0),
                LinkAttribute::LinkNetNsId(_) => link.peer_in_other_netns = true,
                LinkAttribute::LinkInfo(info) => link.kind = Kind::from_info(info),
                _ => {}
            }
        }
        link
    }
}

impl Kind {
    fn from_info(info: Vec<LinkInfo>) -> Self {
        let mut kind = Self::Unstated;
        for part in info {
            match part {
                LinkInfo::Kind(InfoKind::Bridge) => kind = Self::Bridge,
                LinkInfo::Kind(other) => kind = Self::Other(other.to_string()),
                LinkInfo::Data(InfoData::Vxlan(data)) => kind = Self::Vxlan(Vxlan::from_info(data)),
                _ => {}
            }
        }
        kind
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vxlan(vxlan) => write!(f, "vxlan device of VNI {} on port {}", vxlan.vni, vxlan.port),
            Self::Bridge => f.write_str("bridge"),
            Self::Other(kind) => write!(f, "{kind} device"),
            Self::Unstated => f.write_str("network card"),
        }
    }
}

impl Vxlan {
    fn from_info(data: Vec<InfoVxlan>) -> Self {
        let mut vxlan = Self::default();
        for parameter in data {
            match parameter {
                InfoVxlan::Id(vni) => vxlan.vni = vni,
                InfoVxlan::Port(port) => vxlan.port = port,
                InfoVxlan::Local(local) => vxlan.local = Some(local.into()),
                InfoVxlan::Local6(local) => vxlan.local = Some(local.into()),
                InfoVxlan::Link(index) => vxlan.underlay = Some(index),
                InfoVxlan::Group(group) => vxlan.group = Some(group.into()),
                InfoVxlan::Group6(group) => vxlan.group = Some(group.into()),
                InfoVxlan::Learning(learning) => vxlan.learning = learning,
                InfoVxlan::L2Miss(miss) => vxlan.l2miss = miss,
                InfoVxlan::L3Miss(miss) => vxlan.l3miss = miss,
                InfoVxlan::Gbp => vxlan.gbp = true,
                InfoVxlan::CollectMetadata(external) => vxlan.external = external,
                _ => {}
            }
        }
        vxlan
    }

    /// How `self` differs from `wanted`, in words; empty if they are equal.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        fn parameter<T: PartialEq + std::fmt::Debug>(name: &str, is: &T, wanted: &T) -> Option<String> {
            (is != wanted).then(|| format!("{name} is {is:?}, wanted {wanted:?}"))
        }
        [
            parameter("vni", &self.vni, &wanted.vni),
            parameter("port", &self.port, &wanted.port),
            parameter("local", &self.local, &wanted.local),
            parameter("underlay index", &self.underlay, &wanted.underlay),
            parameter("group", &self.group, &wanted.group),
            parameter("learning", &self.learning, &wanted.learning),
            parameter("l2miss", &self.l2miss, &wanted.l2miss),
            parameter("l3miss", &self.l3miss, &wanted.l3miss),
            parameter("gbp", &self.gbp, &wanted.gbp),
            parameter("external", &self.external, &wanted.external),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Netlink {
    /// Every interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let pick = |message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        };
        let links = bulk::listed(&RouteNetlinkMessage::GetLink(LinkMessage::default()), pick);
        links.map_err(|source| Error { operation: "list the interfaces".to_owned(), source })
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let request = self.0.link().get().match_name(name).execute();
        first(request, || format!("look interface {name} up")).await
    }

    /// The interface with this index.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let request = self.0.link().get().match_index(index).execute();
        first(request, || format!("look the interface of index {index} up")).await
    }

    /// Creates an interface called `name`.
    pub(super) async fn add_link(&self, name: &str, message: LinkMessage) -> Result<(), Error> {
        self.0.link().add(message).execute().await.during(|| format!("create interface {name}"))
    }

    /// Changes what `change` sets of an interface.
    pub(super) async fn change_link(
        &self,
        link: &Link,
        operation: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = change(LinkUnspec::new_with_index(link.index)).build();
        let changed = self.0.link().change(message).execute().await;
        changed.during(|| format!("{operation} of interface {}", link.name))
    }

    /// Deletes an interface.
    pub(super) async fn delete_link(&self, link: &Link) -> Result<(), Error> {
        let deleted = self.0.link().del(link.index).execute().await;
        deleted.during(|| format!("delete interface {}", link.name))
    }
}

async fn first(
    answers: impl futures::Stream<Item = Result<LinkMessage, rtnetlink::Error>>,
    operation: impl FnOnce() -> String,
) -> Result<Option<Link>, Error> {
    match std::pin::pin!(answers).try_next().await.during(operation) {
        Ok(answer) => Ok(answer.map(Link::from_message)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}
