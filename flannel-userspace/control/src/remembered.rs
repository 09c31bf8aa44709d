//! What was last known of the network, kept on disk: with it a host boots and forwards while the registry is away.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flannel_common::{Mac, Vni};
use flannel_model::backend::Kind;
use flannel_model::config::Configuration;
use flannel_model::lease::{Attributes, Lease, Revision, Snapshot};
use flannel_model::vxlan::Formats;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::file;
use crate::identity::Identity;
use crate::lease::{Own, mac_as_text};
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
    /// The formats of VXLAN in which packets were taken, if they were two, or the configuration's was not among them yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formats: Option<Formats>,
    peers: Vec<RememberedPeer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedPeer {
    subnet: IpNetwork,
    public_ip: IpAddr,
    #[serde(with = "mac_as_text")]
    vtep_mac: Option<Mac>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl From<&Peer> for RememberedPeer {
    fn from(&Peer { subnet, public_ip, vtep_mac, announced, heard }: &Peer) -> Self {
        let port = announced.port.or(heard.map(|heard| heard.port));
        Self { subnet, public_ip, vtep_mac, vni: announced.vni.map(Vni::get), port }
    }
}

/// What files of every version say.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl RememberedPeer {
    fn backend_data(&self, mac: Mac) -> Value {
        let mut data = json!({ "VtepMAC": mac.to_string() });
        if let Some(vni) = self.vni {
            data["VNI"] = vni.into();
        }
        if let Some(port) = self.port {
            data["Port"] = port.into();
        }
        data
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
    /// A daemon of another version wrote it.
    #[error(
        "the state file {path} is of version {version}, and this flanneld reads version {VERSION}: it is ignored, and \
         written again once the leases are listed; until then this host cannot boot while etcd is away"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
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

impl Remembered {
    /// What is known now.
    #[must_use]
    pub fn new<'a>(
        identity: Identity,
        config: String,
        own: Own,
        peers: impl Iterator<Item = &'a Peer>,
    ) -> Self {
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let peers = peers.map(RememberedPeer::from).collect();
        Self { version: VERSION, when, identity, config, own, formats: None, peers }
    }

    /// The same with the formats of VXLAN in which packets are taken.
    #[must_use]
    pub fn with_formats(self, formats: Option<Formats>) -> Self {
        Self { formats, ..self }
    }

    /// The formats of VXLAN in which this machine took packets at last.
    #[must_use]
    pub fn last_formats(&self) -> Option<Formats> {
        let configured = || Configuration::parse(self.config.clone()).ok()?.backend.vxlan_format();
        self.formats.or_else(|| configured().map(Formats::only))
    }

    /// Reads the file; nothing if there is none.
    ///
    /// # Errors
    /// There is one, but it cannot be read or parsed, or is of another version.
    pub fn read(path: &Path) -> Result<Option<Self>, RememberedError> {
        let json = match std::fs::read(path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(RememberedError::Io { operation: "read", path: path.to_owned(), source });
            }
        };
        let failed = |source| RememberedError::Content { path: path.to_owned(), source };
        // Another version may have anything else besides.
        let Version { version } = serde_json::from_slice(&json).map_err(failed)?;
        if version != VERSION {
            return Err(RememberedError::Version { path: path.to_owned(), version });
        }
        serde_json::from_slice(&json).map(Some).map_err(failed)
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

    /// Whether it is this machine's.
    #[must_use]
    pub fn is_by(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    /// The peers' leases, older than anything in the registry.
    #[must_use]
    pub fn snapshot(&self, kind: Kind) -> Snapshot {
        let lease = |peer: &RememberedPeer| {
            let data = peer.vtep_mac.map(|mac| (&peer.backend_data(mac)).into());
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use flannel_common::{Mac, Vni};
    use flannel_model::backend::Kind;
    use flannel_model::family::{Addresses, PerFamily, Subnets};
    use flannel_model::lease::EtcdLeaseId;
    use flannel_model::vxlan::Announced;
    use rstest::rstest;
    use tokio::time::Instant;

    use super::{Own, Remembered};
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
            expires: None,
            vtep_macs: PerFamily::only_v4(Mac([2, 0, 0, 0, 0, 1])),
        };
        let peer = Peer {
            subnet: "10.5.2.0/24".parse().unwrap(),
            public_ip: [192, 168, 77, 12].into(),
            vtep_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            announced: Announced { vni: Vni::new(1), port: None },
            heard: None,
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
    fn the_end_of_a_lease_outlives_a_reboot() {
        let (hour, now) = (Duration::from_secs(3600), Instant::now());
        let since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let left = |expires| {
            let own = Own { expires, ..remembered().own };
            let json = serde_json::to_string(&own).unwrap();
            let end = serde_json::from_str::<Own>(&json).unwrap().expires(24 * hour).unwrap();
            end.saturating_duration_since(now).as_secs()
        };
        assert!((3590..=3600).contains(&left(Some(since_1970() + 3600))));
        assert_eq!(left(Some(since_1970() - 3600)), 0, "it is over");
        assert_eq!(left(None), 0, "an older daemon has not noted it");
        assert!((86_390..=86_400).contains(&left(Some(u64::MAX / 4))), "a clock that is not set yet");
        assert_eq!(Own { term: None, ..remembered().own }.expires(hour), None, "a reservation");
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
            r#"{"PublicIP":"192.168.77.12","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#
        );
    }

    #[rstest]
    #[case::newer(r#"{"version":2,"families":{}}"#, 2)]
    #[case::much_newer(r#"{"version":4000000000,"own":[]}"#, 4_000_000_000)]
    fn another_version_is_told(#[case] text: &str, #[case] version: u32) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = Remembered::read(file.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("is of version {version}, and this flanneld reads version 1")),
            "{error}"
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
