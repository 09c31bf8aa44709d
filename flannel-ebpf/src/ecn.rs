//! Explicit congestion notification through a tunnel (RFC 6040), as the kernel's tunnels do it
//! (`include/net/inet_ecn.h`).

use flannel_common::Reason;

const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The ECN field of the outer header: that of the inner TOS byte, but ECT(0) for "congestion experienced".
#[must_use]
#[inline(always)]
pub const fn encapsulate(inner: u8) -> u8 {
    match inner & MASK {
        CE => ECT_0,
        ecn => ecn,
    }
}

/// A TOS byte without its ECN field, for the outer header of a packet to somebody who ignores that (RFC 6040, section
/// 4.1, compatibility mode): a router that may not mark the packet drops it, which its receiver notices.
#[must_use]
#[inline(always)]
pub const fn without(tos: u8) -> u8 {
    tos & !MASK
}

/// The TOS byte of the inner header after decapsulation: the 16 cells of RFC 6040, figure 4.
#[inline(always)]
pub const fn decapsulate(outer: u8, inner: u8) -> Result<u8, Reason> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => Err(Reason::EcnIllegal),
        (NOT_ECT, _) => Ok(inner),
        (_, CE) => Ok(inner | CE),
        (ECT_0, ECT_1) => Ok((inner & !MASK) | ECT_1),
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{CE, ECT_0, ECT_1, NOT_ECT, decapsulate, encapsulate};
    use flannel_common::Reason;

    #[rstest]
    #[case(NOT_ECT, NOT_ECT)]
    #[case(ECT_0, ECT_0)]
    #[case(ECT_1, ECT_1)]
    #[case(CE, ECT_0)]
    fn outer_field(#[case] inner: u8, #[case] outer: u8) {
        assert_eq!(encapsulate(0xb8 | inner), outer, "DSCP is none of its business");
    }

    #[rstest]
    #[case(NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(Reason::EcnIllegal)])]
    #[case(ECT_0, [Ok(ECT_0), Ok(ECT_1), Ok(ECT_0), Ok(CE)])]
    #[case(ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)])]
    #[case(CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)])]
    fn inner_field_by_outer(#[case] inner: u8, #[case] by_outer: [Result<u8, Reason>; 4]) {
        for (outer, expected) in (0..).zip(by_outer) {
            assert_eq!(decapsulate(outer, inner), expected, "outer {outer:02b}");
            assert_eq!(
                decapsulate(0xb8 | outer, 0x28 | inner),
                expected.map(|ecn| 0x28 | ecn),
                "the inner DSCP stays, outer {outer:02b}"
            );
        }
    }
}
