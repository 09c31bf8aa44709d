//! Sets connection tracking liberal for TCP connections that it will not see all of.
//!
//! Connection tracking follows the sequence numbers of a connection and calls packets with unexpected numbers invalid.
//! Of a connection whose packets mostly bypass it, every later packet would be; unless it was set to be liberal with
//! that connection, as the kernel's own flow tables do.

mod lifetime;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, TCPFlags,
    Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    DecodeError, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    Nla as _,
};
use rtnetlink::sys::Socket;
use rtnetlink::sys::constants::NETLINK_NETFILTER;

pub use lifetime::{Lifetime, Timeouts};

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers are not checked.
const BE_LIBERAL: u8 = 0x08;
/// `IPS_SRC_NAT`, `IPS_DST_NAT` and `IPS_SEQ_ADJUST`: packets do not leave as they came.
const INVOLVED: u32 = 1 << 4 | 1 << 5 | 1 << 6;
/// A helper follows the connection (`enum ctattr_type`).
const CTA_HELP: u16 = 5;
/// Sequence numbers of the opener are adjusted.
const CTA_SEQ_ADJ_ORIG: u16 = 15;
/// Those of the other end are.
const CTA_SEQ_ADJ_REPLY: u16 = 16;
/// The host has answered for one end.
const CTA_SYNPROXY: u16 = 24;
/// How many connections are tracked in this network namespace. The file does not exist without connection tracking.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A conversation with connection tracking in the network namespace in which it was opened.
pub struct Conntrack(Socket);

/// What connection tracking knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It knows it, and is liberal with it from now on.
    Liberal,
    /// It does nothing here at all.
    Idle,
    /// It knows others, but not this one: the connection is in a zone, or exempt.
    Unknown,
    /// It changes packets of this one or has to read them: the connection is translated, its sequence numbers are
    /// adjusted as behind SYNPROXY, or a helper follows it.
    Involved,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // The kernel answers before a request returns.
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Sets a TCP connection liberal, whichever of its ends opened it.
    ///
    /// # Errors
    /// Connection tracking cannot be asked.
    pub fn be_liberal(&self, one: SocketAddrV4, other: SocketAddrV4) -> io::Result<Tracking> {
        let outcome = match self.is_involved(one, other) {
            Ok(true) => return Ok(Tracking::Involved),
            Ok(false) => self.change(liberal(one, other)),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Ok(Tracking::Liberal),
            // If nothing is tracked, the kernel module that answers may be missing, too.
            Err(error) => match (is_idle()?, error.raw_os_error().map(Errno::from_raw)) {
                (true, _) => Ok(Tracking::Idle),
                (false, Some(Errno::ENOENT)) => Ok(Tracking::Unknown),
                (false, _) => Err(error),
            },
        }
    }

    fn is_involved(&self, one: SocketAddrV4, other: SocketAddrV4) -> io::Result<bool> {
        Ok(self.entry(one, other)?.iter().any(is_involvement))
    }

    /// What connection tracking knows of a connection.
    fn entry(&self, one: SocketAddrV4, other: SocketAddrV4) -> io::Result<Vec<ConntrackAttribute>> {
        match self.ask(ConntrackMessage::Get(vec![tuple(one, other)]), NLM_F_REQUEST)? {
            NetlinkPayload::Error(error) => Err(error.to_io()),
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                ..
            }) => Ok(attributes),
            _ => Err(unexpected()),
        }
    }

    fn change(&self, message: ConntrackMessage) -> io::Result<()> {
        match self.ask(message, NLM_F_REQUEST | NLM_F_ACK)? {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn ask(&self, message: ConntrackMessage, flags: u16) -> io::Result<NetlinkPayload<NetfilterMessage>> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let payload = NetlinkPayload::from(NetfilterMessage::new(header, message));
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
        request.header.flags = flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        Ok(NetlinkMessage::deserialize(&answer).map_err(malformed)?.payload)
    }
}

/// Whether the attribute tells that packets are changed, or read by a helper (`ctnetlink_fill_info`).
fn is_involvement(attribute: &ConntrackAttribute) -> bool {
    match attribute {
        ConntrackAttribute::CtaStatus(status) => status.bits() & INVOLVED != 0,
        ConntrackAttribute::Other(other) => {
            let kind = other.kind() & NLA_TYPE_MASK;
            [CTA_HELP, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY].contains(&kind)
        }
        _ => false,
    }
}

/// Either direction finds the connection.
fn tuple(one: SocketAddrV4, other: SocketAddrV4) -> ConntrackAttribute {
    ConntrackAttribute::CtaTupleOrig(vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(address(one)), IPTuple::DestinationAddress(address(other))]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(one.port()),
            ProtoTuple::DestinationPort(other.port()),
        ]),
    ])
}

fn liberal(one: SocketAddrV4, other: SocketAddrV4) -> ConntrackMessage {
    let liberal = || TCPFlags::parse(&[BE_LIBERAL, BE_LIBERAL]);
    let flags = [liberal().map(ProtoInfoTCP::OriginalFlags), liberal().map(ProtoInfoTCP::ReplyFlags)];
    let flags = flags.into_iter().flatten().collect();
    ConntrackMessage::New(vec![
        tuple(one, other),
        ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(flags)]),
    ])
}

const fn address(end: SocketAddrV4) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_octets(end.ip().octets()))
}

fn unexpected() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the kernel answered something else")
}

fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Whether no connection is tracked in the calling thread's network namespace.
pub(crate) fn is_idle() -> io::Result<bool> {
    match fs::read_to_string(COUNT) {
        Ok(count) => Ok(count.trim() == "0"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::namespace::{in_namespace, run};

    pub(super) fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address} is no address of IPv4"),
        }
    }

    /// Makes the kernel track connections that this namespace opens.
    pub(super) fn track(more: &str) {
        run("nft", "add table ip track");
        run("nft", "add chain ip track output { type filter hook output priority raw ; }");
        if !more.is_empty() {
            run("nft", &format!("add rule ip track output {more}"));
        }
        run("nft", "add rule ip track output ct state new counter accept");
    }

    /// The flags of both directions of a connection.
    fn flags(conntrack: &Conntrack, one: SocketAddrV4, other: SocketAddrV4) -> Vec<u8> {
        let attributes = conntrack.entry(one, other).unwrap();
        let protocol = attributes.into_iter().find_map(|attribute| match attribute {
            ConntrackAttribute::CtaProtoInfo(info) => info.into_iter().next(),
            _ => None,
        });
        let Some(ProtoInfo::TCP(info)) = protocol else { panic!("no TCP") };
        info.into_iter()
            .filter_map(|part| match part {
                ProtoInfoTCP::OriginalFlags(flags) | ProtoInfoTCP::ReplyFlags(flags) => Some(flags.flags),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn where_nothing_is_tracked_there_is_nobody_to_tell() {
        in_namespace(async |_| {
            let conntrack = Conntrack::open().unwrap();
            let [one, other] = ["10.5.1.2:4000", "10.5.2.2:80"].map(|end| end.parse().unwrap());
            assert_eq!(conntrack.be_liberal(one, other).unwrap(), Tracking::Idle);
        });
    }

    #[test]
    fn a_tracked_connection_is_tracked_liberally_from_then_on() {
        in_namespace(async |_| {
            track("");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (one, other) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
            let conntrack = Conntrack::open().unwrap();
            assert!(flags(&conntrack, one, other).iter().all(|flags| flags & BE_LIBERAL == 0));
            assert_eq!(conntrack.be_liberal(one, other).unwrap(), Tracking::Liberal);
            let both = flags(&conntrack, one, other);
            assert!(both.len() == 2 && both.iter().all(|flags| flags & BE_LIBERAL != 0), "{both:?}");
            assert_eq!(conntrack.be_liberal(other, one).unwrap(), Tracking::Liberal, "by its other end");

            let stranger = SocketAddrV4::new(*one.ip(), one.port() ^ 1);
            assert_eq!(conntrack.be_liberal(stranger, other).unwrap(), Tracking::Unknown);
        });
    }

    #[test]
    fn a_connection_in_a_zone_is_not_found() {
        in_namespace(async |_| {
            track("ct zone set 5");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (one, other) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
            assert_eq!(Conntrack::open().unwrap().be_liberal(one, other).unwrap(), Tracking::Unknown);
        });
    }

    /// Opens a connection to the port, and tells what becomes of it.
    fn tracking_of_a_connection_to(port: u16) -> Tracking {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (one, other) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
        let tracking = Conntrack::open().unwrap().be_liberal(one, other).unwrap();
        drop(listener);
        tracking
    }

    #[test]
    fn a_connection_with_a_helper_does_not_bypass_the_stack() {
        in_namespace(async |_| {
            track("");
            run("nft", "add ct helper ip track ftp { type \"ftp\" protocol tcp ; }");
            run("nft", "add rule ip track output tcp dport 2121 ct helper set \"ftp\"");
            run("nft", "add chain ip track late { type filter hook output priority 0 ; }");
            run("nft", "add rule ip track late tcp dport 2121 ct helper set \"ftp\"");
            assert_eq!(tracking_of_a_connection_to(2121), Tracking::Involved);
            assert_eq!(tracking_of_a_connection_to(2122), Tracking::Liberal);
        });
    }

    #[test]
    fn a_translated_connection_does_not_bypass_the_stack() {
        in_namespace(async |_| {
            track("");
            run("nft", "add chain ip track redirecting { type nat hook output priority -100 ; }");
            run("nft", "add rule ip track redirecting tcp dport 2180 redirect to :2181");
            let listener = TcpListener::bind("127.0.0.1:2181").unwrap();
            let client = TcpStream::connect("127.0.0.1:2180").unwrap();
            let (one, other) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
            let conntrack = Conntrack::open().unwrap();
            assert_eq!(conntrack.be_liberal(one, other).unwrap(), Tracking::Involved);
            drop(listener);
        });
    }
}
