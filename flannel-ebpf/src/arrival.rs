//! A received packet of the tunnel.

use flannel_common::maps::{Node, Peer};
use flannel_common::wire::{EthernetHeader, Ipv4Header};
use flannel_common::{Ip4, Mac, Reason};
use zerocopy::network_endian::U16;

use crate::frame::{Encapsulation, Frame};
use crate::outer::{self, OuterHeaders};
use crate::peers::Peers;
use crate::{ecn, guard, inner};

/// A packet of the tunnel for this host, with its outer headers.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// Its format.
    pub encapsulation: Encapsulation,
    /// Its outer headers.
    pub outer: OuterHeaders,
    /// The Ethernet sender of the inner packet.
    pub from: Mac,
    /// The IPv4 header of the inner packet.
    pub ip: Ipv4Header,
}

impl Arrival {
    /// Where the inner packet's IPv4 header begins.
    #[must_use]
    #[inline(always)]
    pub const fn offset(&self) -> u32 {
        EthernetHeader::LEN + self.encapsulation.overhead()
    }

    /// The first address of the subnet the inner packet is from.
    #[must_use]
    #[inline(always)]
    pub fn subnet(&self, node: &Node) -> Ip4 {
        self.ip.source().masked(node.netmask)
    }

    /// Asks the guard. Returns the TOS byte of the inner packet, or why a program must not remove its outer headers.
    #[inline(always)]
    pub fn admit(&self, frame: &impl Frame, peers: &impl Peers, node: &Node) -> Result<u8, Reason> {
        let peer = guard::admit(node, peers, self.outer.ip.source(), &self.ip)?;
        outer::check_carrier(node)?;
        let tos = self.tos(frame)?;
        if self.encapsulation == Encapsulation::Udp {
            self.note_whole(peers, node, &peer);
        }
        Ok(tos)
    }

    /// The same for a packet that needs no guard.
    #[inline(always)]
    pub fn tos(&self, frame: &impl Frame) -> Result<u8, Reason> {
        if self.outer.ip.is_fragment() {
            // The first fragment, with all the headers: with it the whole packet, which the kernel reassembles, has
            // passed the guard.
            return Err(Reason::Reassemble);
        }
        let tos = ecn::decapsulate(self.outer.ip.tos, self.ip.tos)?;
        if self.encapsulation == Encapsulation::Vxlan && inner::is_non_tcp_gso(frame, &self.ip) {
            return Err(Reason::LeftToDevice);
        }
        Ok(tos)
    }

    /// Asks the guard and removes the outer headers. Returns the subnet that the packet is from.
    #[inline(always)]
    pub fn decapsulate(
        &self,
        frame: &mut impl Frame,
        peers: &impl Peers,
        node: &Node,
    ) -> Result<Ip4, Reason> {
        let tos = self.admit(frame, peers, node)?;
        self.strip(frame, node, tos)?;
        Ok(self.subnet(node))
    }

    /// Removes the outer headers and addresses the inner packet to the flannel device.
    #[inline(always)]
    pub fn strip(&self, frame: &mut impl Frame, node: &Node, tos: u8) -> Result<(), Reason> {
        frame.remove(self.encapsulation)?;
        inner::arrive(frame, node, self.from, &self.ip, tos)
    }

    /// Whether its datagram shows that the peer takes packets whole, super-packets and partial checksums included.
    #[must_use]
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.encapsulation == Encapsulation::Udp && self.outer.udp.checksum == U16::ZERO
    }

    /// Notes how the peer sends, unless `peer`, as the guard returned it, already says so.
    #[inline(always)]
    fn note_whole(&self, peers: &impl Peers, node: &Node, peer: &Peer) {
        let whole = if self.is_whole() { peers.now() } else { 0 };
        if peer.whole != whole {
            peers.note_whole(self.subnet(node), self.outer.ip.source(), whole);
        }
    }
}
