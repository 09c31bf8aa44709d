//! What was last known of the network, kept on disk: with it a host boots and forwards while the registry is away.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::family::{Addresses, PerFamily, Subnets};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision, Snapshot};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::identity::Identity;
use crate::peers::Peer;

/// The version of the file's layout; another one is not read.
const VERSION: u32 = 1;

/// What was last known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    version: u32,
    /// The time of this knowledge, in seconds since 1970.
    when: u64,
    /// The machine that wrote it: a copy of the file on another one is ignored.
    identity: Identity,
    /// The network's configuration as it stood in the registry.
    pub config: String,
    /// The own lease.
    pub own: Own,
    peers: Vec<RememberedPeer>,
}

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
    #[serde(with = "mac")]
    vtep_mac: Option<Mac>,
    #[serde(with = "mac", default, skip_serializing_if = "Option::is_none")]
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedPeer {
    subnet: IpNetwork,
    public_ip: IpAddr,
    #[serde(with = "mac")]
    vtep_mac: Option<Mac>,
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

    /// Whether the host leases the same subnets as by `other`.
    #[must_use]
    pub fn is_of_same_subnets(&self, other: &Self) -> bool {
        self.subnets == other.subnets
    }
}

/// Where what is known is kept.
pub trait Store: Send {
    /// Keeps it, replacing what was kept before.
    ///
    /// # Errors
    /// It cannot be kept.
    fn keep(&self, remembered: &Remembered) -> Result<(), RememberedError>;
}

impl Store for PathBuf {
    fn keep(&self, remembered: &Remembered) -> Result<(), RememberedError> {
        remembered.write(self)
    }
}

/// The file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RememberedError {
    /// The file system refuses.
    #[error("cannot {operation} the state file {path}: make it writable, or choose another --state-file")]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file's content was not written by a daemon.
    #[error("the state file {path} cannot be parsed: it is ignored, and written again")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

impl Own {
    /// Ethernet addresses of this host's VTEPs if the host still has these addresses. With others it may get a second
    /// lease beside this one, which peers take for another host's: they would refuse it for having the same VTEP.
    #[must_use]
    pub fn vtep_macs_at(&self, public: &Addresses) -> PerFamily<Mac> {
        if self.public.first() == public.first() { self.vtep_macs } else { PerFamily::NONE }
    }
}

impl Remembered {
    /// What is known now.
    #[must_use]
    pub fn new<'a>(
        identity: Identity,
        config: String,
        own: Own,
        peers: impl Iterator<Item = &'a Peer>,
    ) -> Self {
        let remember =
            |&Peer { subnet, public_ip, vtep_mac }: &Peer| RememberedPeer { subnet, public_ip, vtep_mac };
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { version: VERSION, when, identity, config, own, peers: peers.map(remember).collect() }
    }

    /// Reads the file; nothing if there is none, or one of another version.
    ///
    /// # Errors
    /// There is one, but it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Option<Self>, RememberedError> {
        let json = match std::fs::read(path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(RememberedError::Io { operation: "read", path: path.to_owned(), source });
            }
        };
        let remembered: Self = serde_json::from_slice(&json)
            .map_err(|source| RememberedError::Content { path: path.to_owned(), source })?;
        Ok(Some(remembered).filter(|remembered| remembered.version == VERSION))
    }

    /// Writes the file in one step.
    ///
    /// # Errors
    /// The file system refuses. What was there before still is.
    pub fn write(&self, path: &Path) -> Result<(), RememberedError> {
        let failed = |source| RememberedError::Io { operation: "write", path: path.to_owned(), source };
        let json = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file::create_directory_of(path)
            .and_then(|()| file::replace(path, &json, file::PRIVATE))
            .map_err(failed)
    }

    /// Its age; zero if the file claims to be from the future.
    #[must_use]
    pub fn age(&self) -> Duration {
        let when = UNIX_EPOCH.checked_add(Duration::from_secs(self.when));
        when.and_then(|when| SystemTime::now().duration_since(when).ok()).unwrap_or_default()
    }

    /// Whether it is this machine's, and of a network with this configuration.
    #[must_use]
    pub fn is_of(&self, identity: &Identity, config: &str) -> bool {
        self.identity == *identity && self.config == config
    }

    /// The peers' leases, older than anything in the registry.
    #[must_use]
    pub fn snapshot(&self, kind: Kind) -> Snapshot {
        let lease = |peer: &RememberedPeer| {
            let data = peer.vtep_mac.map(|mac| (&serde_json::json!({ "VtepMAC": mac.to_string() })).into());
            let mut attributes = Attributes::new(peer.public_ip.into());
            attributes.backend_type = kind.lease_type().map(str::to_owned);
            attributes.backend_data.set(peer.subnet.into(), data);
            Lease {
                subnets: peer.subnet.into(),
                attributes,
                mod_revision: Revision::ZERO,
                created: Revision::ZERO,
                term: None,
            }
        };
        Snapshot { leases: self.peers.iter().map(lease).collect(), ..Snapshot::default() }
    }
}

/// An Ethernet address as text.
mod mac {
    use flannel_common::Mac;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
    pub(super) fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        mac.map(|mac| mac.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::Mac;
    use flannel_model::backend::Kind;
    use rstest::rstest;

    use super::{Addresses, EtcdLeaseId, Ipv4Addr, Own, PerFamily, Remembered, Subnets};
    use crate::identity::Identity;
    use crate::peers::Peer;

    const CONFIG: &str = r#"{"Network":"10.5.0.0/16"}"#;

    fn address(last: u8) -> Addresses {
        Ipv4Addr::new(192, 168, 77, last).into()
    }

    fn remembered() -> Remembered {
        let own = Own {
            public: address(11),
            subnets: Subnets { v4: Some("10.5.1.0/24".parse().unwrap()), v6: None },
            term: EtcdLeaseId::from_id(7),
            vtep_macs: PerFamily::only_v4(Mac([2, 0, 0, 0, 0, 1])),
        };
        let peer = Peer {
            subnet: "10.5.2.0/24".parse().unwrap(),
            public_ip: [192, 168, 77, 12].into(),
            vtep_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        };
        let identity = Identity::of(Mac([2, 0, 0, 0, 0, 9]));
        Remembered::new(identity, CONFIG.to_owned(), own, [peer].iter())
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/state.json");
        assert_eq!(Remembered::read(&path).unwrap(), None);
        remembered().write(&path).unwrap();
        assert_eq!(Remembered::read(&path).unwrap(), Some(remembered()));
        assert!(remembered().age().as_secs() < 5);
    }

    #[test]
    fn a_family_that_is_not_served_leaves_no_trace() {
        let json = serde_json::to_string(&remembered().own).unwrap();
        let expected =
            r#"{"public_ip":"192.168.77.11","subnet":"10.5.1.0/24","term":7,"vtep_mac":"02:00:00:00:00:01"}"#;
        assert_eq!(json, expected);
        let both = Own {
            subnets: Subnets { v6: Some("fd00:10:5:1::/64".parse().unwrap()), ..remembered().own.subnets },
            ..remembered().own
        };
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Own>(&json).unwrap(), both);
    }

    #[test]
    fn what_is_of_the_future_is_not_out_of_date() {
        assert!(Remembered { when: u64::MAX, ..remembered() }.age().is_zero());
    }

    #[test]
    fn vtep_belongs_to_the_address() {
        let own = remembered().own;
        assert_eq!(own.vtep_macs_at(&address(11)), own.vtep_macs);
        assert!(own.vtep_macs_at(&address(99)).is_empty());
    }

    #[test]
    fn what_another_machine_or_another_network_remembers_is_nothing() {
        let (own, other) = (Identity::of(Mac([2, 0, 0, 0, 0, 9])), Identity::of(Mac([2, 0, 0, 0, 0, 8])));
        assert!(remembered().is_of(&own, CONFIG));
        assert!(!remembered().is_of(&other, CONFIG), "a copied disk");
        assert!(!remembered().is_of(&own, "{}"));
    }

    #[test]
    fn peers_become_the_leases_they_were() {
        let snapshot = remembered().snapshot(Kind::Vxlan);
        assert_eq!(snapshot.leases.len(), 1);
        assert_eq!(
            snapshot.leases[0].attributes.to_json().unwrap(),
            r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:02"}}"#
        );
    }

    #[rstest]
    #[case::empty("")]
    #[case::cut(r#"{"version":1,"when":5"#)]
    #[case::wrong_type(r#"{"version":1,"when":"x","identity":"","config":"","own":{},"peers":[]}"#)]
    fn other_content_is_an_error(#[case] text: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = Remembered::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be parsed"), "{error}");
    }
}
