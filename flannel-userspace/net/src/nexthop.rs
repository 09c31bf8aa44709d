//! Next hop objects, separate from the routes that use them.
//!
//! The kernel looks for an equal next hop before it adds a route, and finds all those of one device, however
//! different, in one chain: the ten-thousandth route takes a millisecond. Next hops with numbers of their own are
//! found at once.

use std::net::Ipv4Addr;

use nix::libc::AF_INET;
use rtnetlink::packet_core::NetlinkSerializable;
use rtnetlink::packet_route::route::RouteFlags;

use super::ROUTE_PROTOCOL;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nhmsg`.
const HEADER: usize = 8;
/// An attribute of four bytes.
const ATTRIBUTE: usize = 8;

/// A request about a next hop on flannel's device. Its number is its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    /// Adds it, on the link of the device.
    New { gateway: Ipv4Addr, device: u32 },
    /// Removes it.
    Delete { gateway: Ipv4Addr },
}

/// The number of the next hop with that address.
pub(super) fn id(gateway: Ipv4Addr) -> u32 {
    gateway.into()
}

/// Whether the kernel reports routes that use next hops with numbers as it reports others.
pub(super) fn is_reported_with_routes() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/nexthop_compat_mode").is_ok_and(|mode| mode.trim() == "1")
}

impl NextHop {
    fn attributes(self) -> Vec<(u16, [u8; 4])> {
        match self {
            Self::New { gateway, device } => vec![
                (NHA_ID, id(gateway).to_ne_bytes()),
                (NHA_OIF, device.to_ne_bytes()),
                (NHA_GATEWAY, gateway.octets()),
            ],
            Self::Delete { gateway } => vec![(NHA_ID, id(gateway).to_ne_bytes())],
        }
    }
}

impl NetlinkSerializable for NextHop {
    fn message_type(&self) -> u16 {
        match self {
            Self::New { .. } => RTM_NEWNEXTHOP,
            Self::Delete { .. } => RTM_DELNEXTHOP,
        }
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes().len() * ATTRIBUTE
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER);
        header.fill(0);
        // A removal must state only the number.
        if let Self::New { .. } = self {
            header[0] = u8::try_from(AF_INET).unwrap_or_default();
            header[2] = ROUTE_PROTOCOL;
            header[4..].copy_from_slice(&RouteFlags::Onlink.bits().to_ne_bytes());
        }
        for ((kind, value), buffer) in self.attributes().into_iter().zip(attributes.chunks_mut(ATTRIBUTE)) {
            buffer[..2].copy_from_slice(&8_u16.to_ne_bytes());
            buffer[2..4].copy_from_slice(&kind.to_ne_bytes());
            buffer[4..].copy_from_slice(&value);
        }
    }
}
