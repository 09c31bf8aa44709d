//! Connection tracking, told of TCP connections that it is not to see all of.
//!
//! It follows the sequence numbers of a connection and calls a packet invalid whose number it does not expect. Of a
//! connection whose packets mostly skip it, every later packet would be; unless it was told to be liberal with that
//! connection, as the kernel's own flow tables do.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, TCPFlags,
    Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::Socket;
use rtnetlink::sys::constants::NETLINK_NETFILTER;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers are not looked at.
const BE_LIBERAL: u8 = 0x08;
/// How many connections are tracked in this network namespace. It is not there without connection tracking.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A conversation with connection tracking in the network namespace in which it was opened.
pub struct Conntrack(Socket);

/// What connection tracking makes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It knows it, and is liberal with it from now on.
    Liberal,
    /// It does nothing here at all.
    Idle,
    /// It knows others, but not this one: the connection is in a zone, or exempt.
    Unknown,
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

    /// Has a TCP connection tracked liberally, whichever of its ends opened it.
    ///
    /// # Errors
    /// Neither the connection nor whether there is any can be found out.
    pub fn be_liberal(&self, one: SocketAddrV4, other: SocketAddrV4) -> io::Result<Tracking> {
        match self.request(update(one, other)) {
            Ok(()) => Ok(Tracking::Liberal),
            // Where nothing is tracked, the part of the kernel that is asked need not be there either.
            Err(error) => match (is_idle()?, error.raw_os_error().map(Errno::from_raw)) {
                (true, _) => Ok(Tracking::Idle),
                (false, Some(Errno::ENOENT)) => Ok(Tracking::Unknown),
                (false, _) => Err(error),
            },
        }
    }

    fn request(&self, message: ConntrackMessage) -> io::Result<()> {
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let payload = NetlinkPayload::from(NetfilterMessage::new(header, message));
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        match NetlinkMessage::<NetfilterMessage>::deserialize(&answer).map_err(malformed)?.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(()),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the kernel answered something else")),
        }
    }
}

fn update(one: SocketAddrV4, other: SocketAddrV4) -> ConntrackMessage {
    // Either direction finds the connection.
    let tuple = vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(address(one)), IPTuple::DestinationAddress(address(other))]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(one.port()),
            ProtoTuple::DestinationPort(other.port()),
        ]),
    ];
    let liberal = || TCPFlags::parse(&[BE_LIBERAL, BE_LIBERAL]);
    let flags = [liberal().map(ProtoInfoTCP::OriginalFlags), liberal().map(ProtoInfoTCP::ReplyFlags)];
    let flags = flags.into_iter().flatten().collect();
    ConntrackMessage::New(vec![
        ConntrackAttribute::CtaTupleOrig(tuple),
        ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(flags)]),
    ])
}

const fn address(end: SocketAddrV4) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_octets(end.ip().octets()))
}

fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn is_idle() -> io::Result<bool> {
    match fs::read_to_string(COUNT) {
        Ok(count) => Ok(count.trim() == "0"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
