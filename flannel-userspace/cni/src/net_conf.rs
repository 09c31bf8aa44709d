//! The network's configuration, as the runtime gives it.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::{CniError, code};
use crate::json::Fields;
use crate::version;

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/flannel";

/// What the runtime gives on the standard input.
#[derive(Clone, Debug)]
pub struct NetConf {
    /// The network's name.
    pub name: String,
    /// Which version of the protocol it is written in, if it says so.
    pub cni_version: Option<String>,
    /// Where flanneld says which subnet this host has.
    pub subnet_file: PathBuf,
    /// Where the delegate's configurations are kept.
    pub data_dir: PathBuf,
    /// What the delegate is told beyond what comes from here.
    pub delegate: Map<String, Value>,
    /// What gives addresses, and what it is told.
    pub ipam: Map<String, Value>,
    /// What the runtime says of this pod, such as mappings of ports.
    pub runtime_config: Option<Map<String, Value>>,
    /// What came of ADD.
    pub prev_result: Option<Map<String, Value>>,
    /// All of it.
    pub fields: Fields,
}

impl NetConf {
    /// The version of the protocol that is spoken.
    pub fn version(&self) -> &str {
        self.cni_version.as_deref().unwrap_or(version::UNSAID)
    }
}

/// Reads it.
///
/// # Errors
/// It is no JSON, something is of another type, or there is no good name.
pub fn read(text: &[u8]) -> Result<NetConf, CniError> {
    let undecoded =
        |error: &str| CniError::new(code::DECODING, format!("error unmarshall network config: {error}"));
    let fields: Fields = serde_json::from_slice(text).map_err(|error| undecoded(&error.to_string()))?;
    let name = fields.text("name").map_err(|error| undecoded(&error))?.unwrap_or_default().to_owned();
    check_name(&name)?;
    let cni_version = fields.text("cniVersion").map_err(|error| {
        CniError::new(code::DECODING, format!("decoding version from network config: {error}"))
    })?;
    let cni_version = cni_version.filter(|version| !version.is_empty()).map(str::to_owned);
    let unloaded = |error: String| {
        CniError::internal(format!("failed to load flannel netconf file: failed to load netconf: {error}"))
    };
    rest(name, cni_version, fields).map_err(unloaded)
}

fn rest(name: String, cni_version: Option<String>, fields: Fields) -> Result<NetConf, String> {
    Ok(NetConf {
        name,
        cni_version,
        subnet_file: fields.text("subnetFile")?.unwrap_or(SUBNET_FILE).into(),
        data_dir: fields.text("dataDir")?.unwrap_or(DATA_DIR).into(),
        delegate: fields.object("delegate")?.cloned().unwrap_or_default(),
        ipam: fields.object("ipam")?.cloned().unwrap_or_default(),
        runtime_config: fields.object("runtimeConfig")?.cloned(),
        prev_result: fields.object("prevResult")?.cloned(),
        fields,
    })
}

fn check_name(name: &str) -> Result<(), CniError> {
    if name.is_empty() {
        return Err(CniError::new(code::CONFIGURATION, "missing network name"));
    }
    if !is_identifier(name) {
        let msg = "invalid characters found in network name";
        return Err(CniError::with_details(code::CONFIGURATION, msg, name));
    }
    Ok(())
}

/// Whether it may be the name of a network or of a container: it can be the name of a file, which does not begin with a
/// dot.
pub fn is_identifier(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.bytes().all(inner) && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};
    use rstest::rstest;

    use super::{is_identifier, read};

    #[test]
    fn explicit_places() {
        let conf =
            read(br#"{"name":"cni-flannel","type":"flannel","subnetFile":"/a","dataDir":"/b"}"#).unwrap();
        assert_eq!(conf.name, "cni-flannel");
        assert_eq!((conf.subnet_file.as_path(), conf.data_dir.as_path()), (Path::new("/a"), Path::new("/b")));
    }

    #[test]
    fn default_places() {
        let conf = read(br#"{"name":"cni-flannel","type":"flannel"}"#).unwrap();
        assert_eq!(conf.subnet_file, Path::new("/run/flannel/subnet.env"));
        assert_eq!(conf.data_dir, Path::new("/var/lib/cni/flannel"));
        assert_eq!(conf.version(), "0.1.0");
    }

    #[rstest]
    #[case::nothing("", 6, "error unmarshall network config: ")]
    #[case::array("[]", 6, "error unmarshall network config: ")]
    #[case::half(r#"{"name":"#, 6, "error unmarshall network config: ")]
    #[case::number(
        r#"{"name":7}"#,
        6,
        "error unmarshall network config: 'name' must be a string, not a number"
    )]
    #[case::nameless("{}", 7, "missing network name")]
    #[case::path(r#"{"name":"../x"}"#, 7, "invalid characters found in network name")]
    #[case::version(r#"{"name":"a","cniVersion":1}"#, 6, "decoding version from network config: ")]
    #[case::delegate(
        r#"{"name":"a","delegate":[]}"#,
        999,
        "failed to load flannel netconf file: failed to load netconf: 'delegate' must be an object, not an array"
    )]
    fn refused(#[case] text: &str, #[case] code: u32, #[case] msg: &str) {
        let error = read(text.as_bytes()).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.msg.starts_with(msg), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_it_says(values in vec("null|true|-?[0-9]{1,20}|\"[^\"]{0,5}\"|\\[[0-9]?\\]|\\{(\"routes\":[0-9\\[\\]])?\\}|.{0,3}", 7)) {
            let keys = ["name", "cniVersion", "delegate", "ipam", "runtimeConfig", "prevResult", "dataDir"];
            let fields: Vec<_> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let said = read(format!("{{{}}}", fields.join(",")).as_bytes());
            prop_assert!(said.is_err() || said.is_ok_and(|conf| is_identifier(&conf.name)));
        }
    }

    #[test]
    fn as_deep_as_it_likes() {
        let deep = format!(r#"{{"name":"a","delegate":{}"#, "[".repeat(1 << 20));
        assert_eq!(read(deep.as_bytes()).unwrap_err().code, 6);
    }
}
