//! What the packet logic needs of a packet, whether it is an skb, an XDP buffer or a byte vector.

use flannel_common::wire::{ETHER_TYPE_IPV4, EthernetHeader, UdpStack, VxlanStack};
use flannel_common::{Mac, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The two formats of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Stock flannel's `udp`: the inner IP packet is the payload of UDP.
    Udp,
    /// VXLAN (RFC 7348): the inner Ethernet frame behind a VXLAN header.
    Vxlan,
}

impl Encapsulation {
    /// Bytes the outer headers add to a packet.
    #[must_use]
    #[inline(always)]
    pub const fn overhead(self) -> u32 {
        match self {
            Self::Udp => UdpStack::LEN,
            Self::Vxlan => VxlanStack::LEN,
        }
    }
}

/// A packet that starts with an Ethernet header.
pub trait Frame {
    /// Bytes from the Ethernet header to the end.
    fn len(&self) -> u32;

    /// Whether there is nothing, not even an Ethernet header.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a super-packet (GSO), which stands for many on the wire.
    fn is_super_packet(&self) -> bool {
        false
    }

    /// The header at `offset`; [`Reason::Truncated`] where the packet ends before it does.
    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason>;

    /// Overwrites the bytes at `offset`; [`Reason::AdjustFailed`] where they cannot be written.
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: &T) -> Result<(), Reason>;

    /// Gives an IPv4 packet an Ethernet header with these addresses.
    #[inline(always)]
    fn address(&mut self, destination: Mac, source: Mac) -> Result<(), Reason> {
        let (destination, source) = (destination.by_words(), source.by_words());
        self.store(0, &EthernetHeader { destination, source, ether_type: ETHER_TYPE_IPV4 })
    }

    /// Removes the outer headers of `encapsulation`. The content of the Ethernet header is undefined afterwards: the
    /// caller stores a new one.
    fn remove(&mut self, encapsulation: Encapsulation) -> Result<(), Reason>;
}

/// A packet that can be given outer headers.
pub trait SendFrame: Frame {
    /// Makes room for the outer headers of `encapsulation` behind the Ethernet header. Its bytes are undefined: the
    /// caller stores all of them. [`Reason::LeftToDevice`] where only a device of the kernel can do it.
    fn insert(&mut self, encapsulation: Encapsulation) -> Result<(), Reason>;

    /// A number that is the same for all packets of a flow, spread over 32 bits.
    fn flow_hash(&mut self) -> u32;
}

/// A packet with its interface and what the host has assigned to it.
pub trait FlowFrame: Frame {
    /// Payload bytes of each packet a super-packet stands for; zero for an ordinary packet.
    fn segment_len(&self) -> u32;

    /// Interface index of the device where the program sees it.
    fn interface(&self) -> u32;

    /// Interface index of the device by which the host, or its bridge, last received it; zero for the host's own
    /// packets.
    fn received_by(&self) -> u32;

    /// Largest packet that the device takes where the program sees this one, in bytes, without the Ethernet header.
    fn mtu(&self) -> u32;

    /// The mark that the host's rules have set on it; zero for none.
    fn mark(&self) -> u32;

    /// Its priority in queues.
    fn priority(&self) -> u32;
}
