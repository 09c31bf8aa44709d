//! A packet, and its verdict by the code of the kernel programs over a copy of the maps.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use flannel_common::maps::{Guard, Node, Peer};
use flannel_common::wire::{
    ETHER_TYPE_IPV4, EthernetHeader, IPV4_NO_OPTIONS, Ipv4Header, VxlanHeader, VxlanStack,
};
use flannel_common::{Ip4, Mac, Reason};
use flannel_datapath::{DatapathError, Format, Tables, monotonic_nanoseconds};
use flannel_ebpf::frame::Frame as _;
use flannel_ebpf::model::Table;
use flannel_ebpf::outer::OuterHeaders;
use flannel_ebpf::peers::Peers;
use flannel_ebpf::udp::{self, State};
use flannel_ebpf::vxlan;
use serde::Serialize;
use zerocopy::IntoBytes as _;
use zerocopy::network_endian::U16;

/// `IPPROTO_ICMP`
const ICMP: u8 = 1;
/// Hops a packet starts with.
const TTL: u8 = 64;

/// The maps, as the programs see them.
#[derive(Clone, Debug, Default)]
pub(super) struct Maps {
    pub(super) peers: BTreeMap<Ipv4Addr, Peer>,
    pub(super) sources: BTreeMap<Ipv4Addr, u32>,
}

impl Maps {
    pub(super) fn read(tables: &Tables) -> Result<Self, DatapathError> {
        Ok(Self { peers: tables.raw_peers()?, sources: tables.sources()? })
    }

    /// The entry of the subnet with `address`.
    pub(super) fn entry_of(&self, address: Ipv4Addr, netmask: Ip4) -> Option<(Ipv4Addr, Peer)> {
        let subnet = Ipv4Addr::from(Ip4::from(address).masked(netmask));
        self.peers.get(&subnet).map(|entry| (subnet, *entry))
    }
}

impl Peers for Maps {
    fn peer(&self, subnet: Ip4) -> Option<Peer> {
        self.peers.get(&subnet.into()).copied()
    }

    fn is_source(&self, address: Ip4) -> bool {
        self.sources.contains_key(&address.into())
    }

    fn now(&self) -> u32 {
        u32::try_from(monotonic_nanoseconds() / 1_000_000_000).unwrap_or(u32::MAX).max(1)
    }

    /// Nothing is learned from a packet that was never sent.
    fn note_whole(&self, _: Ip4, _: Ip4, _: u32) {}
}

/// The headers around a packet in the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outer {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// UDP destination port.
    pub(super) port: u16,
    pub(super) vni: Option<u32>,
    /// Ethernet address of the VTEP the inner frame is for.
    pub(super) vtep_mac: Option<String>,
    /// Bytes of outer and inner packet, without the link's header.
    pub(super) bytes: u32,
}

/// A frame with an ICMP packet of `bytes` in it.
fn frame(from: Ipv4Addr, to: Ipv4Addr, bytes: u16, mac: Mac) -> Vec<u8> {
    let ethernet = EthernetHeader { destination: Mac::ZERO, source: mac, ether_type: ETHER_TYPE_IPV4 };
    let mut ip = Ipv4Header {
        version_ihl: IPV4_NO_OPTIONS,
        tos: 0,
        total_len: U16::new(bytes),
        id: U16::new(1),
        fragment: U16::ZERO,
        ttl: TTL,
        protocol: ICMP,
        checksum: U16::ZERO,
        source: from.octets(),
        destination: to.octets(),
    };
    ip.checksum = ip.computed_checksum();
    let payload = usize::from(bytes).saturating_sub(Ipv4Header::LEN as usize);
    [ethernet.as_bytes(), ip.as_bytes(), &vec![0; payload]].concat()
}

/// Sends a packet of `bytes` into the tunnel, as the program at the flannel device does, or the one behind the
/// segmenter.
pub(super) fn send(
    format: Format,
    maps: &impl Peers,
    node: &Node,
    state: State,
    (from, to, bytes): (Ipv4Addr, Ipv4Addr, u16),
) -> Result<Outer, Reason> {
    let mut packet = frame(from, to, bytes, node.device_mac);
    encapsulate(format, &mut packet, maps, node, state)?;
    describe(format, &packet)
}

/// Receives a packet of `bytes` that the host at `outer_source` sends through the tunnel, as the program at the
/// underlay does. Returns the packet and its verdict.
pub(super) fn receive(
    format: Format,
    maps: &impl Peers,
    node: &Node,
    outer_source: Ipv4Addr,
    (from, to, bytes): (Ipv4Addr, Ipv4Addr, u16),
) -> Result<(Outer, Result<Ip4, Reason>), Reason> {
    // The sender knows of this host what this host published.
    let Node { local_ip, device_mac, vni, port, .. } = *node;
    let this = Peer { public_ip: local_ip, vtep_mac: device_mac, vni, port, ..Peer::default() };
    let mut known = Table::default();
    known.insert(Ip4::from(to).masked(node.netmask), this);
    let sender = Node { local_ip: outer_source.into(), guard: Guard::Off as u32, ..*node };
    let mut packet = frame(from, to, bytes, Mac::ZERO);
    encapsulate(format, &mut packet, &known, &sender, State::Segmented)?;
    let outer = describe(format, &packet)?;
    let arrived = match format {
        Format::Udp { .. } => udp::decapsulate(&mut packet, maps, node),
        Format::Vxlan => vxlan::decapsulate(&mut packet, maps, node),
    };
    Ok((outer, arrived))
}

fn encapsulate(
    format: Format,
    packet: &mut Vec<u8>,
    peers: &impl Peers,
    node: &Node,
    state: State,
) -> Result<Ip4, Reason> {
    let sent = match format {
        Format::Udp { .. } => udp::encapsulate(packet, peers, node, state, |_, _| Ok(())),
        Format::Vxlan => vxlan::encapsulate(packet, peers, node, |_, _| Ok(())),
    };
    sent.map(|(subnet, _)| subnet)
}

fn describe(format: Format, packet: &Vec<u8>) -> Result<Outer, Reason> {
    let outer: OuterHeaders = packet.load(0)?;
    let (vni, vtep_mac) = match format {
        Format::Udp { .. } => (None, None),
        Format::Vxlan => {
            let stack: VxlanStack = packet.load(EthernetHeader::LEN)?;
            let header: VxlanHeader = stack.vxlan;
            (Some(header.vni()), Some(stack.ethernet.destination.to_string()))
        }
    };
    Ok(Outer {
        source: outer.ip.source().into(),
        destination: outer.ip.destination().into(),
        port: outer.udp.destination.get(),
        vni,
        vtep_mac,
        bytes: flannel_ebpf::frame::Frame::len(packet).saturating_sub(EthernetHeader::LEN),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use flannel_common::maps::{Guard, Node, Peer};
    use flannel_common::{Ip4, Mac, Reason};
    use flannel_datapath::Format;
    use rstest::rstest;

    use super::{Maps, Outer, State, receive, send};

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 5, 1, 2);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 5, 2, 3);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 12);
    const SIZE: u16 = 84;
    const SEGMENTED: State = State::Segmented;
    const UDP: Format = Format::Udp { segmented: 5 };

    fn node() -> Node {
        Node {
            local_ip: Ip4::from_octets([192, 168, 77, 11]),
            subnet: Ip4::from_octets([10, 5, 1, 0]),
            netmask: Ip4::netmask(24),
            vni: 1,
            port: 8472,
            guard: Guard::Strict as u32,
            device_mac: Mac([2, 0, 0, 0, 0, 1]),
            ..Node::UNSET
        }
    }

    fn maps() -> Maps {
        let entry = Peer {
            public_ip: PEER.into(),
            vtep_mac: Mac([2, 0, 0, 0, 0, 2]),
            vni: 1,
            port: 8472,
            ..Peer::default()
        };
        Maps { peers: [([10, 5, 2, 0].into(), entry)].into(), sources: [(PEER, 1)].into() }
    }

    #[test]
    fn out_by_vxlan_and_udp() {
        let vxlan = send(Format::Vxlan, &maps(), &node(), SEGMENTED, (HERE, THERE, SIZE)).unwrap();
        assert_eq!(
            vxlan,
            Outer {
                source: [192, 168, 77, 11].into(),
                destination: PEER,
                port: 8472,
                vni: Some(1),
                vtep_mac: Some("02:00:00:00:00:02".to_owned()),
                bytes: 134,
            }
        );
        let udp = send(UDP, &maps(), &node(), SEGMENTED, (HERE, THERE, SIZE)).unwrap();
        assert_eq!((udp.destination, udp.vni, udp.bytes), (PEER, None, 112));
    }

    #[test]
    fn a_peer_that_showed_no_programs_gets_ordinary_packets() {
        let sent = send(UDP, &maps(), &node(), State::AsSent, (HERE, THERE, SIZE));
        assert_eq!(sent, Err(Reason::ToSegment));
        let mut shown = maps();
        shown.peers.values_mut().for_each(|peer| peer.whole = u32::MAX);
        assert!(send(UDP, &shown, &node(), State::AsSent, (HERE, THERE, SIZE)).is_ok());
    }

    #[rstest]
    #[case(Format::Vxlan, Reason::ForeignPeer)]
    #[case(UDP, Reason::NoPeer)]
    fn out_to_nobody(#[case] format: Format, #[case] reason: Reason) {
        let nobody = Ipv4Addr::new(10, 5, 9, 9);
        assert_eq!(send(format, &maps(), &node(), SEGMENTED, (HERE, nobody, SIZE)), Err(reason));
    }

    #[rstest]
    #[case::as_it_should_be(PEER, THERE, HERE, Ok(()))]
    #[case::no_peer_at_all(Ipv4Addr::new(192, 168, 77, 99), THERE, HERE, Err(Reason::UnknownOuterSource))]
    #[case::not_its_subnet(PEER, Ipv4Addr::new(10, 5, 9, 9), HERE, Err(Reason::InnerSourceMismatch))]
    #[case::not_our_subnet(PEER, THERE, Ipv4Addr::new(10, 5, 9, 9), Err(Reason::InnerDestinationNotLocal))]
    fn into_this_host(
        #[case] outer: Ipv4Addr,
        #[case] from: Ipv4Addr,
        #[case] to: Ipv4Addr,
        #[case] outcome: Result<(), Reason>,
        #[values(Format::Vxlan, UDP)] format: Format,
    ) {
        let (sent, arrived) = receive(format, &maps(), &node(), outer, (from, to, SIZE)).unwrap();
        assert_eq!((sent.source, sent.destination), (outer, [192, 168, 77, 11].into()));
        assert_eq!(arrived.map(|_| ()), outcome);
    }
}
