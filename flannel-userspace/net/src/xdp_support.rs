//! What an interface offers to XDP programs, asked of the kernel without attaching anything: of the family `netdev` of
//! generic netlink (6.3), and of the link itself. No privilege is needed.

use std::io;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::sys::{Socket, SocketAddr};

use super::XdpProgram;
use super::attachments::xdp_of;

/// `NETLINK_ROUTE`
const ROUTE: isize = 0;
/// `NETLINK_GENERIC`
const GENERIC: isize = 16;
/// `GENL_ID_CTRL`, the family that knows the others.
const CONTROL: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`
const GET_DEVICE: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`
const INTERFACE: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: the driver runs programs that pass and drop.
const BASIC: u64 = 1;
/// `NETDEV_XDP_ACT_RX_SG`: it hands them packets of several buffers.
const SEVERAL_BUFFERS: u64 = 1 << 5;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// Bytes of the headers of netlink and generic netlink.
const HEADERS: usize = 16 + 4;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;

/// Buses whose devices copy packets in memory, as veth pairs do, instead of sending them on a wire.
const MEMORY: [&str; 4] = ["virtio", "xen", "vmbus", "netdevsim"];

/// What an interface offers to XDP programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpSupport {
    /// Whether the driver supports native XDP; `None` if the kernel does not say: it is older than 6.3.
    pub native: Option<bool>,
    /// Whether a native program may be handed packets of several buffers.
    pub several_buffers: bool,
    /// Largest packet, in bytes, without the link's own header.
    pub mtu: u32,
    /// How many send queues it has, in use or not.
    pub transmit_queues: u32,
    /// Whether it is a network card, not a virtual device.
    pub is_card: bool,
    /// The program that is attached.
    pub attached: Option<XdpProgram>,
}

/// What the interface offers to XDP programs; `None` if there is none with that index.
///
/// # Errors
/// The socket cannot be used.
pub fn xdp_support(interface: u32) -> io::Result<Option<XdpSupport>> {
    let Some(link) = link(interface)? else { return Ok(None) };
    let features = features(interface)?;
    let has = |feature| features.map(|features| features & feature != 0);
    let mut support = XdpSupport {
        native: has(BASIC),
        several_buffers: has(SEVERAL_BUFFERS).unwrap_or(false),
        attached: xdp_of(&link),
        ..XdpSupport::default()
    };
    let (mut has_bus, mut is_virtual) = (false, false);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => support.mtu = mtu,
            LinkAttribute::NumTxQueues(number) => support.transmit_queues = number,
            LinkAttribute::ParentDevBusName(bus) => has_bus = !MEMORY.contains(&bus.as_str()),
            LinkAttribute::LinkInfo(info) => {
                is_virtual = info.iter().any(|part| matches!(part, LinkInfo::Kind(_)));
            }
            _ => {}
        }
    }
    support.is_card = has_bus && !is_virtual;
    Ok(Some(support))
}

/// `NETDEV_XDP_ACT_*` of the driver.
fn features(interface: u32) -> io::Result<Option<u64>> {
    let socket = open(GENERIC)?;
    let family = ask(&socket, &request(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0"))?;
    let Some(family) = attribute(&family, FAMILY_ID).and_then(|value| value.try_into().ok()) else {
        return Ok(None);
    };
    let device = request(u16::from_ne_bytes(family), GET_DEVICE, INTERFACE, &interface.to_ne_bytes());
    let answer = ask(&socket, &device)?;
    Ok(attribute(&answer, XDP_FEATURES).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes))
}

fn link(interface: u32) -> io::Result<Option<LinkMessage>> {
    let mut wanted = LinkMessage::default();
    wanted.header.index = interface;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(wanted));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let answer = NetlinkMessage::deserialize(&ask(&open(ROUTE)?, &bytes)?).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
        _ => Ok(None),
    }
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn ask(socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(answer)
}

/// A request with one attribute.
fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
    let attribute = ATTRIBUTE + value.len();
    let padded = attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(HEADERS + padded);
    bytes.extend_from_slice(&u32::from(length(HEADERS + padded)).to_ne_bytes());
    bytes.extend_from_slice(&family.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[command, 1, 0, 0]);
    bytes.extend_from_slice(&length(attribute).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(HEADERS + padded, 0);
    bytes
}

/// The value of an attribute of an answer; none in an error.
fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let number = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if number(answer, 4)? == ERROR {
        return None;
    }
    let mut rest = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(number(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if number(rest, 2)? == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::{FAMILY_NAME, HEADERS, attribute, request, xdp_support};
    use crate::namespace::{add_interface, in_namespace, ip};

    #[test]
    fn virtual_cables_take_it_and_the_loopback_does_not() {
        in_namespace(async |netlink| {
            add_interface("eth0", "192.168.77.11/24");
            ip("link set eth0 mtu 1400");
            let cable = netlink.link("eth0").await.unwrap().unwrap().index;
            let cable = xdp_support(cable).unwrap().unwrap();
            assert_eq!((cable.native, cable.several_buffers, cable.mtu), (Some(true), true, 1400));
            assert!(!cable.is_card && cable.attached.is_none(), "{cable:?}");
            assert!(cable.transmit_queues > 0, "{cable:?}");
            let loopback = xdp_support(1).unwrap().unwrap();
            assert_eq!((loopback.native, loopback.is_card), (Some(false), false));
            assert_eq!(xdp_support(4_000_000).unwrap(), None, "there is none of that index");
        });
    }

    #[test]
    fn attributes_are_found_or_not() {
        let message = request(0x10, 3, FAMILY_NAME, b"netdev\0");
        assert_eq!(message.len(), HEADERS + 12);
        assert_eq!(attribute(&message, FAMILY_NAME), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&message, 7), None);
        assert_eq!(attribute(&message[..HEADERS + 3], FAMILY_NAME), None);
        assert_eq!(attribute(&[], FAMILY_NAME), None);
    }
}
