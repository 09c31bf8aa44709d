//! The file with the network's configuration, `net-conf.json`: as a rule a mounted ConfigMap.

use std::io;
use std::path::{Path, PathBuf};

use flannel_model::config::{ConfigError, NetworkConfig};
use flannel_model::error::Chain;
use flannel_registry::{ConfigSource, RegistryError};
use serde_json::{Map, Value};

/// What says how hosts choose subnets, which are assigned here: as stock flannel does, it is ignored.
const CHOICE: [&str; 6] =
    ["subnetlen", "subnetmin", "subnetmax", "ipv6subnetlen", "ipv6subnetmin", "ipv6subnetmax"];

/// The file with the network's configuration.
#[derive(Clone, Debug)]
pub struct NetConf {
    path: PathBuf,
}

/// The file has no configuration that can be served.
#[derive(Debug, thiserror::Error)]
pub enum NetConfError {
    /// It cannot be read.
    #[error(
        "failed to read net conf: {path}: {source}; mount the ConfigMap that has it, or name another file with --net-config-path"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("error parsing subnet config: {path}: {}", Chain(error))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ConfigError,
    },
}

impl NetConf {
    /// The file at `path`, which must have a configuration now. Later it may have none for a while.
    ///
    /// # Errors
    /// It has none.
    pub fn open(path: &Path) -> Result<Self, NetConfError> {
        let file = Self { path: path.to_owned() };
        let failed = |error| NetConfError::Parse { path: path.to_owned(), error };
        NetworkConfig::parse(&file.read()?).map_err(failed)?;
        Ok(file)
    }

    fn read(&self) -> Result<String, NetConfError> {
        let failed = |source| NetConfError::Read { path: self.path.clone(), source };
        Ok(without_choice(std::fs::read_to_string(&self.path).map_err(failed)?))
    }
}

impl ConfigSource for NetConf {
    async fn config(&self) -> Result<String, RegistryError> {
        // Whoever asks goes on asking, and a file that is being replaced is there again soon.
        self.read().map_err(|error| RegistryError::Other { error: Box::new(error), is_absence: false })
    }
}

/// The configuration without what says how subnets are chosen. What is no object is left for others to refuse.
fn without_choice(json: String) -> String {
    let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(&json) else { return json };
    let before = members.len();
    members.retain(|name, _| !CHOICE.contains(&&*name.to_ascii_lowercase()));
    if members.len() == before { json } else { Value::Object(members).to_string() }
}

#[cfg(test)]
mod tests {
    use flannel_registry::ConfigSource as _;

    use super::NetConf;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[tokio::test]
    async fn what_chooses_subnets_is_ignored() {
        let text = r#"{"Network": "10.244.0.0/16", "subnetlen": 31, "SubnetMin": "10.1.0.0", "Backend": {"Type": "vxlan"}}"#;
        let file = file(text);
        let json = NetConf::open(file.path()).unwrap().config().await.unwrap();
        assert_eq!(json, r#"{"Backend":{"Type":"vxlan"},"Network":"10.244.0.0/16"}"#);
    }

    #[tokio::test]
    async fn other_configurations_are_left_as_they_are() {
        let text = "{ \"Network\":\"10.244.0.0/16\" }\n";
        let file = file(text);
        let source = NetConf::open(file.path()).unwrap();
        assert_eq!(source.config().await.unwrap(), text);
        std::fs::write(file.path(), "{ \"Netw").unwrap();
        assert_eq!(source.config().await.unwrap(), "{ \"Netw", "whoever parses it says what is wrong");
        std::fs::remove_file(file.path()).unwrap();
        let error = source.config().await.unwrap_err();
        assert!(error.to_string().starts_with("failed to read net conf: "), "{error}");
        assert!(!error.is_absence(), "what was read last is no substitute for a file that is gone");
    }

    #[test]
    fn a_start_needs_a_configuration() {
        let missing =
            NetConf::open(std::path::Path::new("/nonexistent/net-conf.json")).unwrap_err().to_string();
        assert!(
            missing.starts_with("failed to read net conf: /nonexistent/net-conf.json: No such file"),
            "{missing}"
        );
        for text in ["", "{", "{\"Network\":\"10.244.0.0\"}"] {
            let file = file(text);
            let error = NetConf::open(file.path()).unwrap_err().to_string();
            assert!(error.starts_with("error parsing subnet config: "), "{error}");
        }
    }
}
