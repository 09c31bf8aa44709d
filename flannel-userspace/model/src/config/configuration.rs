//! The network's configuration as a whole, and what another one would change of it.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::backend::{BackendConfig, BackendError, VxlanConfig};
use super::error::ConfigError;
use super::network::{FamilyConfig, NetworkConfig};
use crate::family::Family;

/// Bytes of a digest that tell configurations apart.
const HASH: usize = 6;

/// A configuration that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// As the operator wrote it.
    pub text: String,
    /// What it says of the network.
    pub network: NetworkConfig,
    /// What it says of the way from host to host.
    pub backend: BackendConfig,
}

/// A configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// For what it says of the network.
    #[error(transparent)]
    Network(#[from] ConfigError),
    /// For what it says of the way from host to host.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Configuration {
    /// Reads, checks and completes a configuration.
    ///
    /// # Errors
    /// It cannot be served; the message names the key, its value, and what to write instead.
    pub fn parse(text: String) -> Result<Self, ConfigurationError> {
        let network = NetworkConfig::parse(&text)?;
        let backend = BackendConfig::parse(&network.backend)?;
        Ok(Self { text, network, backend })
    }

    /// By which configurations are told apart: the beginning of the SHA-256 of the text, in hexadecimal digits. Line
    /// ends behind the text do not count, because shells add and drop them.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(self.text.trim_end_matches(['\r', '\n']).as_bytes());
        hex::encode(&digest[..HASH])
    }

    /// What `next` says otherwise.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        let mut changes = Changes::default();
        let (here, there) = (self.keys(), next.keys());
        let of_next_alone = there.iter().filter(|key| value(&here, key.name).is_none());
        for Key { name, effect, .. } in here.iter().chain(of_next_alone) {
            let (before, after) = (value(&here, name), value(&there, name));
            if before != after {
                let change = Change { key: name, before, after };
                match effect {
                    Effect::Live => changes.live.push(change),
                    Effect::Restart => changes.restart.push(change),
                }
            }
        }
        changes
    }

    /// Everything it says, in the order in which people write it.
    fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for (family, config) in self.network.families.iter() {
            keys.extend(family_keys(family, config));
        }
        keys.push(Key::live("EnableNFTables", self.network.enable_nftables));
        keys.push(Key::restart("Backend.Type", self.backend.kind()));
        match &self.backend {
            BackendConfig::Udp(udp) => {
                keys.push(Key::restart("Backend.Port", udp.port));
                keys.push(Key::live("Backend.DirectRouting", udp.direct_routing));
            }
            BackendConfig::Vxlan(VxlanConfig { vni, port, mtu, direct_routing }) => {
                keys.push(Key::live("Backend.VNI", vni));
                keys.push(Key::live("Backend.Port", port));
                let mtu = mtu.map_or_else(|| "the interface's".to_owned(), |mtu| mtu.to_string());
                keys.push(Key::live("Backend.MTU", mtu));
                keys.push(Key::live("Backend.DirectRouting", direct_routing));
            }
            BackendConfig::Cloud(config) => {
                keys.extend(config.keys().into_iter().map(|(key, value)| Key::restart(key, value)));
            }
            BackendConfig::HostGw | BackendConfig::Alloc => {}
        }
        keys
    }
}

fn family_keys(family: Family, config: &FamilyConfig) -> [Key; 4] {
    let [network, len, min, max] = match family {
        Family::V4 => ["Network", "SubnetLen", "SubnetMin", "SubnetMax"],
        Family::V6 => ["IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"],
    };
    [
        Key::restart(network, config.network),
        Key::restart(len, config.subnet_len),
        Key::live(min, config.subnet_min),
        Key::live(max, config.subnet_max),
    ]
}

/// When another value of a key takes effect on a host that is served.
#[derive(Clone, Copy)]
enum Effect {
    /// At once.
    Live,
    /// When the daemon is started again.
    Restart,
}

/// A key, its value as people write it, and what another value takes.
struct Key {
    name: &'static str,
    value: String,
    effect: Effect,
}

impl Key {
    fn live(name: &'static str, value: impl fmt::Display) -> Self {
        Self { name, value: value.to_string(), effect: Effect::Live }
    }

    fn restart(name: &'static str, value: impl fmt::Display) -> Self {
        Self { name, value: value.to_string(), effect: Effect::Restart }
    }
}

fn value(keys: &[Key], name: &str) -> Option<String> {
    keys.iter().find(|key| key.name == name).map(|key| key.value.clone())
}

/// What a configuration says otherwise than another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What can take effect while the host is served.
    pub live: Vec<Change>,
    /// What takes a restart of the daemon.
    pub restart: Vec<Change>,
}

/// A key with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: &'static str,
    /// Its value before, in words; nothing if it had no meaning.
    pub before: Option<String>,
    /// Its value now.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.as_deref(), self.after.as_deref());
        write!(f, "{} from {} to {}", self.key, before.unwrap_or("none"), after.unwrap_or("none"))
    }
}

/// All of `changes` on one line.
#[must_use]
pub fn listed(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Configuration, listed};

    fn configuration(rest: &str) -> Configuration {
        Configuration::parse(format!(r#"{{"Network":"10.5.0.0/16"{rest}}}"#)).unwrap()
    }

    const VXLAN: &str = r#","Backend":{"Type":"vxlan"}"#;

    #[rstest]
    #[case::nothing(VXLAN, r#","Unknown":1,"Backend":{"Type":"VXLAN","Port":8472}"#, "")]
    #[case::direct(
        VXLAN,
        r#","Backend":{"Type":"vxlan","DirectRouting":true}"#,
        "Backend.DirectRouting from false to true"
    )]
    #[case::mtu(
        VXLAN,
        r#","Backend":{"Type":"vxlan","MTU":1400}"#,
        "Backend.MTU from the interface's to 1400"
    )]
    #[case::vni_and_port(
        VXLAN,
        r#","Backend":{"Type":"vxlan","VNI":7,"Port":4789}"#,
        "Backend.VNI from 1 to 7, Backend.Port from 8472 to 4789"
    )]
    #[case::udp_direct(
        "",
        r#","Backend":{"Type":"udp","DirectRouting":true}"#,
        "Backend.DirectRouting from false to true"
    )]
    #[case::nftables("", r#","EnableNFTables":true"#, "EnableNFTables from false to true")]
    #[case::bounds(
        "",
        r#","SubnetMin":"10.5.7.0","SubnetMax":"10.5.9.0""#,
        "SubnetMin from 10.5.1.0 to 10.5.7.0, SubnetMax from 10.5.255.0 to 10.5.9.0"
    )]
    fn what_takes_effect_at_once(#[case] before: &str, #[case] after: &str, #[case] live: &str) {
        let changes = configuration(before).changes(&configuration(after));
        assert_eq!((listed(&changes.live).as_str(), changes.restart.len()), (live, 0));
    }

    #[rstest]
    #[case::udp_port("", r#","Backend":{"Type":"udp","Port":1}"#, "Backend.Port from 8285 to 1")]
    #[case::length("", r#","SubnetLen":25"#, "SubnetLen from 24 to 25")]
    #[case::kind(
        r#","Backend":{"Type":"host-gw"}"#,
        r#","Backend":{"Type":"alloc"}"#,
        "Backend.Type from host-gw to alloc"
    )]
    #[case::options_along_with_the_kind(
        VXLAN,
        r#","Backend":{"Type":"alloc"}"#,
        "Backend.Type from vxlan to alloc"
    )]
    fn what_takes_a_restart(#[case] before: &str, #[case] after: &str, #[case] restart: &str) {
        let changes = configuration(before).changes(&configuration(after));
        assert_eq!(listed(&changes.restart), restart);
    }

    #[test]
    fn another_network_takes_a_restart() {
        let other = Configuration::parse(r#"{"Network":"10.6.0.0/16"}"#.to_owned()).unwrap();
        let changes = configuration("").changes(&other);
        assert_eq!(listed(&changes.restart), "Network from 10.5.0.0/16 to 10.6.0.0/16");
    }

    /// As by `printf %s TEXT | sha256sum`.
    #[test]
    fn hash_of_the_text() {
        let text = r#"{"Network":"10.5.0.0/16"}"#;
        let hash = |text: &str| Configuration::parse(text.to_owned()).unwrap().hash();
        assert_eq!(hash(text), "83050684d810");
        assert_eq!(hash(&format!("{text}\n")), hash(text), "as etcdctl stores what comes by a pipe");
        assert_ne!(hash(r#"{"Network": "10.5.0.0/16"}"#), hash(text));
    }

    #[rstest]
    #[case::half_written(r#"{"Network":"10.5.0"#, "is not a JSON object")]
    #[case::network(r#"{"Network":"10.5.0.0/99"}"#, "invalid CIDR address: 10.5.0.0/99")]
    #[case::backend(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"gre"}}"#, "unknown backend type: gre")]
    fn what_cannot_be_served(#[case] text: &str, #[case] flaw: &str) {
        let error = Configuration::parse(text.to_owned()).unwrap_err().to_string();
        assert!(error.contains(flaw), "{error}");
    }
}
