//! The VXLAN network identifier.

use core::fmt;

/// A VXLAN network identifier: 24 bits (RFC 7348, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier that fits 24 bits.
    pub const MAX: u32 = 0x00ff_ffff;

    /// The identifier `vni`, or nothing where it does not fit 24 bits.
    #[must_use]
    pub const fn new(vni: u32) -> Option<Self> {
        if vni <= Self::MAX { Some(Self(vni)) } else { None }
    }

    /// The identifier as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Vni;

    #[test]
    fn more_than_24_bits_cannot_be_built() {
        assert_eq!(Vni::new(1).map(Vni::get), Some(1));
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Some(0x00ff_ffff));
        assert_eq!(Vni::new(Vni::MAX + 1), None);
    }
}
