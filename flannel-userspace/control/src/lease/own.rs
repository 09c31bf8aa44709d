//! The own lease as it is kept on disk.

use std::net::{Ipv4Addr, Ipv6Addr};

use flannel_common::{Mac, Vni};
use flannel_model::family::{Addresses, PerFamily, Subnets};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

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
    #[serde(with = "mac_as_text")]
    vtep_mac: Option<Mac>,
    #[serde(with = "mac_as_text", default, skip_serializing_if = "Option::is_none")]
    vtep_v6_mac: Option<Mac>,
}

impl From<Own> for WrittenOwn {
    fn from(own: Own) -> Self {
        let Own { public, subnets, term, vtep_macs } = own;
        Self {
            public_ip: public.v4,
            public_ipv6: public.v6,
            subnet: subnets.v4,
            ipv6_subnet: subnets.v6,
            term: term.map(EtcdLeaseId::id),
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
            vtep_macs: PerFamily { v4: own.vtep_mac, v6: own.vtep_v6_mac },
        }
    }
}

impl Own {
    /// The lease as it is held now, of a host with these VTEPs.
    #[must_use]
    pub fn of(lease: &Lease, vteps: PerFamily<(Vni, Mac)>) -> Self {
        let vtep_macs = vteps.map(|_, (_, mac)| mac);
        let Lease { subnets, ref attributes, term, .. } = *lease;
        Self { public: attributes.public, subnets, term, vtep_macs }
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
