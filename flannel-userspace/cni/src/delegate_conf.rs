//! The configuration of the delegate, which makes the interface.

use serde_json::{Map, Value, json};

use crate::error::CniError;
use crate::json::{Fields, kind, whole_numbers};
use crate::net_conf::NetConf;
use crate::subnet_env::{SubnetEnv, cidr};

/// What makes the interface unless another plugin is named.
const BRIDGE: &str = "bridge";
/// What gives addresses unless another plugin is named.
const HOST_LOCAL: &str = "host-local";
/// What a route may say, in the order of the specification.
const ROUTE: [&str; 7] = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];

/// A configuration that names its plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct DelegateConf {
    plugin: String,
    conf: Map<String, Value>,
}

impl DelegateConf {
    /// What the delegate is told of this network on this host: the same as by stock flannel.
    ///
    /// # Errors
    /// The network's configuration says what it must leave to flannel, or bad routes.
    pub fn new(network: &NetConf, env: &SubnetEnv) -> Result<Self, CniError> {
        let mut conf = network.delegate.clone();
        let plugin = plugin(&conf)?.to_owned();
        if let Some(runtime_config) = &network.runtime_config {
            conf.insert("runtimeConfig".to_owned(), runtime_config.clone().into());
        }
        conf.insert("name".to_owned(), network.name.clone().into());
        let mut unless_given = |key: &str, value: Value| {
            conf.entry(key).or_insert(value);
        };
        unless_given("type", BRIDGE.into());
        unless_given("ipMasq", (!env.ip_masq).into());
        unless_given("mtu", env.mtu.into());
        if plugin == BRIDGE {
            unless_given("isGateway", true.into());
        }
        if let Some(version) = &network.cni_version {
            conf.insert("cniVersion".to_owned(), version.clone().into());
        }
        conf.insert("ipam".to_owned(), ipam(network, env)?);
        conf.values_mut().for_each(whole_numbers);
        Ok(Self { plugin, conf })
    }

    /// What was kept.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let conf: Map<String, Value> = serde_json::from_slice(text).ok()?;
        let plugin = conf.get("type")?.as_str()?.to_owned();
        Some(Self { plugin, conf })
    }

    /// Its plugin.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// The network's name, if it has one.
    pub fn network(&self) -> Option<&str> {
        self.conf.get("name")?.as_str()
    }

    /// The version of the protocol, if it says so.
    pub fn version(&self) -> Option<&str> {
        self.conf.get("cniVersion")?.as_str()
    }

    /// With another value of a key.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.conf.insert(key.to_owned(), value.into());
        self
    }

    /// As the plugin reads it.
    pub fn text(&self) -> String {
        Value::Object(self.conf.clone()).to_string()
    }
}

/// The plugin that the dictionary `delegate` names.
fn plugin(delegate: &Map<String, Value>) -> Result<&str, CniError> {
    let Some(plugin) = delegate.get("type").map_or(Some(BRIDGE), Value::as_str) else {
        let msg = "'delegate' dictionary, if present, must have (string) 'type' field";
        return Err(CniError::internal(msg));
    };
    for key in ["name", "ipam"] {
        if delegate.contains_key(key) {
            let msg = format!("'delegate' dictionary must not have '{key}' field, it'll be set by flannel");
            return Err(CniError::internal(msg));
        }
    }
    Ok(plugin)
}

fn ipam(network: &NetConf, env: &SubnetEnv) -> Result<Value, CniError> {
    let mut ipam = network.ipam.clone();
    ipam.entry("type").or_insert_with(|| HOST_LOCAL.into());
    let ranges = env.subnets.iter().map(|subnet| json!([{"subnet": subnet.to_string()}])).collect();
    ipam.insert("ranges".to_owned(), Value::Array(ranges));
    let given = ipam.get("routes").map_or_else(|| Ok(Vec::new()), routes).map_err(|error| {
        CniError::internal(format!(
            "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: {error}"
        ))
    })?;
    let networks = env.networks.iter().map(|network| json!({"dst": network.to_string()}));
    ipam.insert("routes".to_owned(), given.into_iter().chain(networks).collect());
    Ok(ipam.into())
}

fn routes(given: &Value) -> Result<Vec<Value>, String> {
    match given {
        Value::Null => Ok(Vec::new()),
        Value::Array(routes) => routes.iter().map(route).collect(),
        other => Err(format!("routes must be an array, not {}", kind(other))),
    }
}

/// A route, with what the specification knows of it.
fn route(given: &Value) -> Result<Value, String> {
    let Some(route) = given.as_object() else {
        return Err(format!("a route must be an object, not {}", kind(given)));
    };
    let route = Fields::from(route);
    if route.text("dst")?.and_then(cidr).is_none() {
        return Err(format!("{given} has no network 'dst'"));
    }
    if let Some(gateway) = route.text("gw")?.filter(|gateway| gateway.parse::<std::net::IpAddr>().is_err()) {
        return Err(format!("{gateway:?} is no address"));
    }
    let known = ROUTE.iter().filter_map(|key| Some(((*key).to_owned(), route.get(key)?.clone())));
    Ok(Value::Object(known.collect()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::DelegateConf;
    use crate::net_conf;
    use crate::subnet_env::SubnetEnv;

    fn env(networks: &[&str], subnets: &[&str]) -> SubnetEnv {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        SubnetEnv { networks: read(networks), subnets: read(subnets), mtu: 1472, ip_masq: true }
    }

    fn v4() -> SubnetEnv {
        env(&["10.1.0.0/16"], &["10.1.17.0/24"])
    }

    fn v6() -> SubnetEnv {
        env(&["fc00::/48"], &["fc00::/64"])
    }

    fn dual() -> SubnetEnv {
        env(&["10.1.0.0/16", "fc00::/48"], &["10.1.17.0/24", "fc00::/64"])
    }

    fn delegate(network: &Value, env: &SubnetEnv) -> Result<Value, String> {
        let network = net_conf::read(network.to_string().as_bytes()).map_err(|error| error.to_string())?;
        let conf = DelegateConf::new(&network, env).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&conf.text()).unwrap())
    }

    #[rstest]
    #[case::typed_v4(Some("my-ipam"), v4())]
    #[case::typed_v6(Some("my-ipam"), v6())]
    #[case::typed_dual(Some("my-ipam"), dual())]
    #[case::untyped_v4(None, v4())]
    #[case::untyped_v6(None, v6())]
    #[case::untyped_dual(None, dual())]
    #[case::two_networks(Some("host-local"), env(&["10.1.0.0/16", "192.168.0.0/16"], &["10.1.17.0/24"]))]
    fn ipam_with_routes(#[case] plugin: Option<&str>, #[case] env: SubnetEnv) {
        let routes = [json!({"dst": "10.96.0.0/12"}), json!({"dst": "192.168.244.0/24", "gw": "10.1.17.20"})];
        let mut given = json!({"unknown-param": "unknown-value", "routes": routes, "ranges": "overwritten"});
        if let Some(plugin) = plugin {
            given["type"] = plugin.into();
        }
        let networks = env.networks.iter().map(|network| json!({"dst": network.to_string()}));
        let ranges = env.subnets.iter().map(|subnet| json!([{"subnet": subnet.to_string()}]));
        let expected = json!({
            "type": plugin.unwrap_or("host-local"),
            "unknown-param": "unknown-value",
            "routes": routes.iter().cloned().chain(networks).collect::<Vec<_>>(),
            "ranges": ranges.collect::<Vec<_>>(),
        });
        let conf = delegate(&json!({"name": "a", "ipam": given}), &env).unwrap();
        assert_eq!(conf["ipam"], expected);
    }

    #[test]
    fn what_is_given_stays() {
        let network = json!({
            "Name": "cbr0", "cniversion": "0.3.1", "TYPE": "flannel",
            "Delegate": {"type": "ptp", "mtu": 1400.0, "ipMasq": true, "x": [1, {"y": 2.5}]},
            "RuntimeConfig": {"portMappings": []},
            "ipam": {"routes": [{"DST": "10.9.8.7/16", "foreign": 1, "mtu": 1300}]},
        });
        let expected = json!({
            "name": "cbr0", "cniVersion": "0.3.1", "type": "ptp", "mtu": 1400, "ipMasq": true,
            "x": [1, {"y": 2.5}], "runtimeConfig": {"portMappings": []},
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.1.17.0/24"}]],
                "routes": [{"dst": "10.9.8.7/16", "mtu": 1300}, {"dst": "10.1.0.0/16"}],
            },
        });
        assert_eq!(delegate(&network, &v4()), Ok(expected));
    }

    #[test]
    fn the_delegate_masquerades_where_flanneld_does_not() {
        let env = SubnetEnv { ip_masq: false, ..v4() };
        let conf = delegate(&json!({"name": "a", "delegate": {"isDefaultGateway": true}}), &env).unwrap();
        assert_eq!((&conf["ipMasq"], &conf["isGateway"]), (&json!(true), &json!(true)));
    }

    const ROUTES: &str =
        "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: ";

    #[rstest]
    #[case(json!({"delegate": {"type": 7}}), "'delegate' dictionary, if present, must have (string) 'type' field")]
    #[case(json!({"delegate": {"name": "x"}}), "'delegate' dictionary must not have 'name' field, it'll be set by flannel")]
    #[case(json!({"delegate": {"ipam": {}}}), "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel")]
    #[case(json!({"ipam": {"routes": 7}}), &format!("{ROUTES}routes must be an array, not a number"))]
    #[case(json!({"ipam": {"routes": [7]}}), &format!("{ROUTES}a route must be an object, not a number"))]
    #[case(json!({"ipam": {"routes": [{}]}}), &format!("{ROUTES}{{}} has no network 'dst'"))]
    #[case(json!({"ipam": {"routes": [{"dst": "::/0", "gw": "x"}]}}), &format!("{ROUTES}\"x\" is no address"))]
    fn refused(#[case] mut network: Value, #[case] msg: &str) {
        network["name"] = "a".into();
        assert_eq!(delegate(&network, &v4()), Err(msg.to_owned()));
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let kept = br#"{"type":"bridge","name":"cbr0"}"#;
        let conf = DelegateConf::parse(kept).unwrap();
        assert_eq!((conf.plugin(), conf.network(), conf.version()), ("bridge", Some("cbr0"), None));
        for text in ["", "[]", "{}", r#"{"type":7}"#, "{\"type\":"] {
            assert_eq!(DelegateConf::parse(text.as_bytes()), None);
        }
    }
}
