//! The format of a VXLAN network's packets, and how a host goes over from one to another while peers still use the
//! former one.

use std::fmt;

use flannel_common::Vni;
use serde::{Deserialize, Serialize};

/// What tells the packets of a VXLAN network from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct VxlanFormat {
    /// Network identifier.
    pub vni: Vni,
    /// UDP port at which hosts take packets.
    pub port: u16,
}

/// As it stands in files.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Written {
    vni: u32,
    port: u16,
}

impl From<VxlanFormat> for Written {
    fn from(VxlanFormat { vni, port }: VxlanFormat) -> Self {
        Self { vni: vni.get(), port }
    }
}

impl TryFrom<Written> for VxlanFormat {
    type Error = String;

    fn try_from(Written { vni, port }: Written) -> Result<Self, Self::Error> {
        let vni = Vni::new(vni).ok_or_else(|| format!("{vni} is no VNI"))?;
        if port == 0 { Err("0 is no port of hosts".to_owned()) } else { Ok(Self { vni, port }) }
    }
}

impl fmt::Display for VxlanFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VNI {} at UDP port {}", self.vni, self.port)
    }
}

/// What the lease of a host says of the format in which it takes packets. Stock flannel names the identifier alone, that
/// of 2017 nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Network identifier.
    pub vni: Option<Vni>,
    /// UDP port.
    pub port: Option<u16>,
}

/// The formats in which a host takes packets. It sends to each peer in the one that this peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// That of the configuration.
    pub present: VxlanFormat,
    /// That of the configuration before, until every peer has gone over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<VxlanFormat>,
}

impl Formats {
    /// One, as long as nothing changes.
    #[must_use]
    pub const fn only(present: VxlanFormat) -> Self {
        Self { present, former: None }
    }

    /// The next ones on the way to `wanted`. While two are in use, there is no way to a third: peers may still take
    /// nothing but the first.
    #[must_use]
    pub fn toward(self, wanted: VxlanFormat) -> Self {
        match self.former {
            _ if wanted == self.present => self,
            Some(former) if former != wanted => self,
            _ => Self { present: wanted, former: Some(self.present) },
        }
    }

    /// Without the former one.
    #[must_use]
    pub const fn settled(self) -> Self {
        Self::only(self.present)
    }

    /// Whether the identifier is that of one of them.
    #[must_use]
    pub fn have(self, vni: Vni) -> bool {
        vni == self.present.vni || self.former.is_some_and(|former| former.vni == vni)
    }

    /// In which of them a host takes packets whose lease says that. Where the lease leaves it open, it is the format
    /// that was `heard` from the host; or else the former: it is a stock host that was not restarted, or one that has not
    /// heard of the change yet.
    #[must_use]
    pub fn of(self, announced: Announced, heard: Option<VxlanFormat>) -> VxlanFormat {
        let Some(former) = self.former else { return self.present };
        let is_former = match announced {
            Announced { vni: Some(vni), .. } if former.vni != self.present.vni => vni == former.vni,
            Announced { port: Some(port), .. } => port == former.port,
            Announced { port: None, .. } => heard.is_none_or(|heard| heard == former),
        };
        if is_former { former } else { self.present }
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::Vni;
    use rstest::rstest;

    use super::{Announced, Formats, VxlanFormat};

    const fn format(vni: u32, port: u16) -> VxlanFormat {
        VxlanFormat { vni: Vni::new(vni).unwrap(), port }
    }

    const FIRST: VxlanFormat = format(1, 8472);
    const SECOND: VxlanFormat = format(7, 8472);
    const THIRD: VxlanFormat = format(7, 4789);

    #[test]
    fn the_former_one_is_kept_until_it_is_settled() {
        let both = Formats::only(FIRST).toward(SECOND);
        assert_eq!(both, Formats { present: SECOND, former: Some(FIRST) });
        assert_eq!(both.toward(SECOND), both, "heard of again, or after a restart");
        assert_eq!(both.settled(), Formats::only(SECOND));
    }

    #[test]
    fn a_change_that_is_taken_back_swaps_them() {
        let both = Formats::only(FIRST).toward(SECOND);
        assert_eq!(both.toward(FIRST), Formats { present: FIRST, former: Some(SECOND) });
        assert_eq!(both.toward(FIRST).toward(SECOND), both);
    }

    #[test]
    fn a_third_one_waits() {
        let both = Formats::only(FIRST).toward(SECOND);
        assert_eq!(both.toward(THIRD), both, "a peer may know nothing but the first");
        assert_eq!(both.settled().toward(THIRD), Formats { present: THIRD, former: Some(SECOND) });
    }

    #[rstest]
    #[case::of_stock_before(Some(1), None, FIRST)]
    #[case::of_stock_restarted(Some(7), None, SECOND)]
    #[case::of_stock_2017(None, None, FIRST)]
    #[case::before(Some(1), Some(8472), FIRST)]
    #[case::gone_over(Some(7), Some(8472), SECOND)]
    #[case::ahead(Some(7), Some(4789), SECOND)]
    fn the_identifier_tells(#[case] vni: Option<u32>, #[case] port: Option<u16>, #[case] takes: VxlanFormat) {
        let announced = Announced { vni: vni.map(|vni| Vni::new(vni).unwrap()), port };
        for heard in [None, Some(FIRST), Some(SECOND)].into_iter().take(if vni.is_some() { 3 } else { 1 }) {
            assert_eq!(Formats::only(FIRST).toward(SECOND).of(announced, heard), takes);
            assert_eq!(Formats::only(FIRST).of(announced, heard), FIRST, "there is no other");
        }
    }

    /// Stock flannel does not name its port.
    #[rstest]
    #[case::unsaid(None, None, SECOND)]
    #[case::unsaid_and_heard_before(None, Some(SECOND), SECOND)]
    #[case::unsaid_and_heard_after(None, Some(THIRD), THIRD)]
    #[case::before(Some(8472), Some(THIRD), SECOND)]
    #[case::gone_over_and_still_sending_as_before(Some(4789), Some(SECOND), THIRD)]
    fn the_port_tells_where_the_identifier_stays(
        #[case] port: Option<u16>,
        #[case] heard: Option<VxlanFormat>,
        #[case] takes: VxlanFormat,
    ) {
        let announced = Announced { vni: Vni::new(7), port };
        assert_eq!(Formats::only(SECOND).toward(THIRD).of(announced, heard), takes);
    }

    #[test]
    fn what_is_written_is_read() {
        for formats in [Formats::only(FIRST), Formats::only(FIRST).toward(SECOND)] {
            let json = serde_json::to_string(&formats).unwrap();
            assert_eq!(serde_json::from_str::<Formats>(&json).unwrap(), formats);
        }
        let json = serde_json::to_string(&Formats::only(FIRST)).unwrap();
        assert_eq!(json, r#"{"present":{"vni":1,"port":8472}}"#);
        for nonsense in [r#"{"present":{"vni":16777216,"port":1}}"#, r#"{"present":{"vni":1,"port":0}}"#] {
            assert!(serde_json::from_str::<Formats>(nonsense).is_err());
        }
    }
}
