//! The headers on the wire, one struct per header and one per outer header stack.
//!
//! Every struct is plain data of alignment 2: an Ethernet frame in the kernel starts two bytes before a
//! four-byte boundary, and headers of alignment 2 are a fifth cheaper to verify than byte-wise ones.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::addr::{Ip4, Mac};

/// EtherType of IPv4.
pub const ETHER_TYPE_IPV4: U16 = U16::from_bytes([0x08, 0x00]);
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Version 4 and a header of five words: an IPv4 header without options.
pub const IPV4_NO_OPTIONS: u8 = 0x45;
/// The "more fragments" bit and the fragment offset of [`Ipv4Header::fragment`].
const FRAGMENT_MASK: u16 = 0x3fff;
/// The fragment offset of [`Ipv4Header::fragment`].
const FRAGMENT_OFFSET_MASK: u16 = 0x1fff;
/// The time to live an encapsulated packet starts with; as the kernel's vxlan device and stock flannel.
pub const OUTER_TTL: u8 = 64;
/// The "I" flag of the VXLAN header: the VNI is valid (RFC 7348, section 5).
pub const VXLAN_FLAG_VNI: u16 = 0x0800;

/// Declares a header as plain data and proves its size.
macro_rules! header {
    ($(#[$meta:meta])* $name:ident, $size:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C, align(2))]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// Bytes on the wire.
            pub const LEN: u32 = $size;
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}

header! {
    /// Ethernet II header (IEEE 802.3).
    EthernetHeader, 14 {
        /// Receiver.
        destination: Mac,
        /// Sender.
        source: Mac,
        /// Protocol of the payload.
        ether_type: U16,
    }
}

header! {
    /// IPv4 header without options (RFC 791).
    Ipv4Header, 20 {
        /// Version in the high nibble, length in 32-bit words in the low one.
        version_ihl: u8,
        /// DSCP in the high six bits (RFC 2474), ECN in the low two (RFC 3168).
        tos: u8,
        /// Header and payload, in bytes. In a GSO super-packet the kernel rewrites it per segment.
        total_len: U16,
        /// Identification of the datagram its fragments belong to.
        id: U16,
        /// Flags in the high three bits, fragment offset in units of 8 bytes in the others.
        fragment: U16,
        /// Hops left.
        ttl: u8,
        /// Protocol of the payload.
        protocol: u8,
        /// Internet checksum of the header (RFC 1071).
        checksum: U16,
        /// Sender.
        source: [u8; 4],
        /// Receiver.
        destination: [u8; 4],
    }
}

header! {
    /// UDP header (RFC 768).
    UdpHeader, 8 {
        /// Sender's port.
        source: U16,
        /// Receiver's port.
        destination: U16,
        /// Header and payload, in bytes.
        len: U16,
        /// Checksum; zero means "none", which IPv4 allows.
        checksum: U16,
    }
}

header! {
    /// VXLAN header (RFC 7348, section 5).
    VxlanHeader, 8 {
        /// [`VXLAN_FLAG_VNI`] must be set; the other bits are reserved: zero on transmission, ignored on
        /// receipt.
        flags: U16,
        /// Reserved as above.
        reserved: U16,
        /// The high 16 bits of the VXLAN network identifier.
        vni_high: U16,
        /// Its low 8 bits in the high byte; the low byte is reserved as above.
        vni_low: U16,
    }
}

header! {
    /// What the VXLAN backend puts between the outer Ethernet header and the inner packet.
    VxlanStack, 50 {
        /// Outer IPv4 header.
        ip: Ipv4Header,
        /// Outer UDP header.
        udp: UdpHeader,
        /// VXLAN header.
        vxlan: VxlanHeader,
        /// Ethernet header of the inner frame.
        ethernet: EthernetHeader,
    }
}

header! {
    /// What the UDP backend puts between the outer Ethernet header and the inner packet: stock flannel's
    /// format is the bare inner IP packet as the payload of UDP.
    UdpStack, 28 {
        /// Outer IPv4 header.
        ip: Ipv4Header,
        /// Outer UDP header.
        udp: UdpHeader,
    }
}

impl Ipv4Header {
    /// The same header, put together from its words, for the reason of [`Mac::by_words`].
    #[must_use]
    #[inline(always)]
    pub fn by_words(self) -> Self {
        let [a, b, c, d, e, f, g, h, i, j]: [u16; 10] = transmute!(self);
        transmute!([a, b, c, d, e, f, g, h, i, j])
    }

    /// Sender.
    #[must_use]
    #[inline(always)]
    pub fn source(&self) -> Ip4 {
        Ip4::from_octets(self.source)
    }

    /// Receiver.
    #[must_use]
    #[inline(always)]
    pub fn destination(&self) -> Ip4 {
        Ip4::from_octets(self.destination)
    }

    /// Length of the header with its options, in bytes.
    #[must_use]
    #[inline(always)]
    pub fn header_len(&self) -> u32 {
        u32::from(self.version_ihl & 0x0f) * 4
    }

    /// Whether this is a part of a datagram only.
    #[must_use]
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_MASK != 0
    }

    /// Whether this is a part of a datagram, but not the first one: no transport header follows.
    #[must_use]
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_OFFSET_MASK != 0
    }

    /// The checksum the header should bear, whatever stands in its checksum field.
    #[must_use]
    #[inline(always)]
    pub fn computed_checksum(&self) -> U16 {
        // The fields by name instead of a loop over bytes: the verifier sees ten additions.
        let [s0, s1, s2, s3] = self.source;
        let [d0, d1, d2, d3] = self.destination;
        let sum = u32::from(u16::from_be_bytes([self.version_ihl, self.tos]))
            + u32::from(self.total_len.get())
            + u32::from(self.id.get())
            + u32::from(self.fragment.get())
            + u32::from(u16::from_be_bytes([self.ttl, self.protocol]))
            + u32::from(u16::from_be_bytes([s0, s1]))
            + u32::from(u16::from_be_bytes([s2, s3]))
            + u32::from(u16::from_be_bytes([d0, d1]))
            + u32::from(u16::from_be_bytes([d2, d3]));
        U16::new(!fold(sum))
    }
}

/// Folds a sum of 16-bit words to the ones' complement sum (RFC 1071).
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after the 16-bit word `old` became `new` (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
pub const fn update_checksum(checksum: U16, old: u16, new: u16) -> U16 {
    let sum = (!checksum.get()) as u32 + (!old) as u32 + new as u32;
    U16::new(!fold(sum))
}

impl VxlanHeader {
    /// The header of a frame in network `vni`, a valid [`crate::Vni`].
    #[must_use]
    #[inline(always)]
    pub const fn new(vni: u32) -> Self {
        Self {
            flags: U16::new(VXLAN_FLAG_VNI),
            reserved: U16::ZERO,
            vni_high: U16::new((vni >> 8) as u16),
            vni_low: U16::new((vni << 8) as u16),
        }
    }

    /// The VXLAN network identifier, whether or not the flag calls it valid.
    #[must_use]
    #[inline(always)]
    pub const fn vni(&self) -> u32 {
        (self.vni_high.get() as u32) << 8 | (self.vni_low.get() as u32) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::{Ipv4Header, U16, VxlanHeader, update_checksum};
    use zerocopy::{FromBytes, IntoBytes};

    /// The worked example of many textbooks: 45 00 00 73 … checksum b861.
    const EXAMPLE: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
        0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn checksum_of_known_header() {
        let header = Ipv4Header::read_from_bytes(&EXAMPLE).unwrap();
        assert_eq!(header.computed_checksum(), header.checksum);
        assert_eq!(header.header_len(), 20);
    }

    #[test]
    fn patched_checksum_equals_recomputed() {
        let mut header = Ipv4Header::read_from_bytes(&EXAMPLE).unwrap();
        for tos in 0..=u8::MAX {
            let old = u16::from_be_bytes([header.version_ihl, header.tos]);
            let new = u16::from_be_bytes([header.version_ihl, tos]);
            header.checksum = update_checksum(header.checksum, old, new);
            header.tos = tos;
            assert_eq!(header.checksum, header.computed_checksum(), "tos {tos}");
        }
        assert_ne!(header.checksum, U16::ZERO);
    }

    #[test]
    fn vxlan_header_bytes() {
        let header = VxlanHeader::new(0x00ab_cdef);
        assert_eq!(header.as_bytes(), [0x08, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
        assert_eq!(header.vni(), 0x00ab_cdef);
    }
}
