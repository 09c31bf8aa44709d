//! The own lease as it is kept on disk.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flannel_common::Mac;
use flannel_model::family::{Addresses, PerFamily, Subnets};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision};
use flannel_model::vxlan::Formats;
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::LeaseState;

/// The own lease as it was last held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenOwn", into = "WrittenOwn")]
pub struct Own {
    /// The addresses at which other hosts reached this one.
    pub public: Addresses,
    /// The leased subnets.
    pub subnets: Subnets,
    /// Its term; nothing for a reservation.
    pub term: Option<EtcdLeaseId>,
    /// Until when it lasts at least, in seconds since 1970; nothing for a reservation, and where that was not noted.
    pub expires: Option<u64>,
    /// Ethernet addresses of this host's VTEPs.
    pub vtep_macs: PerFamily<Mac>,
}

/// The own lease as it stands in the file.
#[derive(Clone, Serialize, Deserialize)]
struct WrittenOwn {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ip: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet: Option<Ipv4Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6_subnet: Option<Ipv6Network>,
    term: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(with = "mac_as_text")]
    vtep_mac: Option<Mac>,
    #[serde(with = "mac_as_text", default, skip_serializing_if = "Option::is_none")]
    vtep_v6_mac: Option<Mac>,
}

impl From<Own> for WrittenOwn {
    fn from(own: Own) -> Self {
        let Own { public, subnets, term, expires, vtep_macs } = own;
        Self {
            public_ip: public.v4,
            public_ipv6: public.v6,
            subnet: subnets.v4,
            ipv6_subnet: subnets.v6,
            term: term.map(EtcdLeaseId::id),
            expires,
            vtep_mac: vtep_macs.v4,
            vtep_v6_mac: vtep_macs.v6,
        }
    }
}

impl From<WrittenOwn> for Own {
    fn from(own: WrittenOwn) -> Self {
        Self {
            public: Addresses { v4: own.public_ip, v6: own.public_ipv6 },
            subnets: Subnets { v4: own.subnet, v6: own.ipv6_subnet },
            term: own.term.and_then(EtcdLeaseId::from_id),
            expires: own.expires,
            vtep_macs: PerFamily { v4: own.vtep_mac, v6: own.vtep_v6_mac },
        }
    }
}

impl Own {
    /// The lease as it is held now, of a host with these VTEPs.
    #[must_use]
    pub fn of(held: &LeaseState, vteps: PerFamily<(Formats, Mac)>) -> Self {
        let vtep_macs = vteps.map(|_, (_, mac)| mac);
        let Lease { subnets, ref attributes, term, .. } = held.lease;
        let expires = held.expires.map(|end| {
            let left = end.saturating_duration_since(Instant::now());
            (SystemTime::now() + left).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
        });
        Self { public: attributes.public, subnets, term, expires, vtep_macs }
    }

    /// Until when it lasts at least, of leases that last for `ttl`; nothing for a reservation. What is over, or was not
    /// noted, may have ended.
    #[must_use]
    pub fn expires(&self, ttl: Duration) -> Option<Instant> {
        self.term?;
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(self.expires.unwrap_or_default()));
        let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        // Before it has heard of the time of day, a host may take it to be years ago.
        Some(Instant::now() + left.min(ttl))
    }

    /// The lease, with what it is to say now.
    #[must_use]
    pub fn lease(&self, attributes: Attributes) -> Lease {
        let Self { subnets, term, .. } = *self;
        Lease { subnets, attributes, mod_revision: Revision::ZERO, created: Revision::ZERO, term }
    }

    /// Ethernet addresses of this host's VTEPs if the host still has these addresses. With others it may get a second
    /// lease beside this one, which peers take for another host's: they would refuse it for having the same VTEP.
    #[must_use]
    pub fn vtep_macs_at(&self, public: &Addresses) -> PerFamily<Mac> {
        if self.public.first() == public.first() { self.vtep_macs } else { PerFamily::NONE }
    }
}

/// An Ethernet address as text.
pub(crate) mod mac_as_text {
    use flannel_common::Mac;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
    pub(crate) fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        mac.map(|mac| mac.to_string()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
