//! What came of ADD, as the runtime gives it again.

use std::net::IpAddr;

use flannel_model::config::cidr::masked;
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::json::Fields;
use crate::subnet_env::{SubnetEnv, cidr};

/// What can be told from the addresses that a pod was given: enough to give them back.
pub fn subnet_env(result: &Map<String, Value>) -> Option<SubnetEnv> {
    let mut subnets: Vec<IpNetwork> = addresses(result, "address", cidr).into_iter().map(masked).collect();
    subnets.dedup();
    // Whether the delegate masquerades is not known. `bridge` fails where it is to remove a rule that is not there.
    let known = SubnetEnv { networks: subnets.clone(), subnets, mtu: 0, ip_masq: true };
    (!known.subnets.is_empty()).then_some(known)
}

/// The result with a gateway in every route.
///
/// A route without one is by that of the addresses (the specification, "Success"), which is how plugins make it; but the
/// CHECK of `bridge`, `ptp` and others looks for a route without a gateway (`ValidateExpectedRoute`), and never finds it.
pub fn with_gateways(mut result: Map<String, Value>) -> Map<String, Value> {
    let gateways = addresses(&result, "gateway", |text| text.parse::<IpAddr>().ok());
    let Some(routes) = result.get_mut("routes").and_then(Value::as_array_mut) else { return result };
    for route in routes.iter_mut().filter_map(Value::as_object_mut) {
        let said = Fields::from(&*route);
        let destination = said.text("dst").ok().flatten().and_then(cidr);
        let gateway = destination.and_then(|destination| {
            gateways.iter().find(|gateway| gateway.is_ipv4() == destination.is_ipv4())
        });
        if let (None, Some(gateway)) = (said.get("gw"), gateway) {
            route.insert("gw".to_owned(), gateway.to_string().into());
        }
    }
    result
}

/// What the addresses of a result, of version 0.3.0 or later, say by this key. Earlier ones were given to no command.
fn addresses<T>(result: &Map<String, Value>, key: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let said = |address: &Value| Fields::from(address.as_object()?).text(key).ok().flatten().and_then(&read);
    let addresses = result.get("ips").and_then(Value::as_array);
    addresses.into_iter().flatten().filter_map(said).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Map, Value, json};

    use super::{subnet_env, with_gateways};

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn subnets_of_the_addresses() {
        let addresses = json!([{"address": "10.1.17.5/24"}, {"address": "fc00::5/64"}, {"address": 7}, null]);
        let env = subnet_env(&object(json!({"ips": addresses}))).unwrap();
        assert_eq!(env.subnets, ["10.1.17.0/24".parse().unwrap(), "fc00::/64".parse().unwrap()]);
    }

    #[rstest]
    #[case(json!({}))]
    #[case(json!({"ips": {}}))]
    #[case(json!({"ips": []}))]
    #[case(json!({"ip4": {"ip": "10.1.17.5/24"}}))]
    fn no_addresses(#[case] result: Value) {
        assert_eq!(subnet_env(&object(result)), None);
    }

    #[test]
    fn routes_by_the_gateway_of_their_family() {
        let result = json!({
            "ips": [{"address": "10.1.17.5/24", "gateway": "10.1.17.1"}, {"address": "fc00::5/64", "gateway": "fc00::1"}],
            "routes": [{"dst": "10.1.0.0/16"}, {"dst": "fc00::/48", "gw": null}, {"dst": "10.9.0.0/16", "GW": "10.1.17.9"}, 7],
        });
        let routes = json!([
            {"dst": "10.1.0.0/16", "gw": "10.1.17.1"}, {"dst": "fc00::/48", "gw": "fc00::1"},
            {"dst": "10.9.0.0/16", "GW": "10.1.17.9"}, 7,
        ]);
        assert_eq!(with_gateways(object(result))["routes"], routes);
    }

    #[rstest]
    #[case(json!({"routes": [{"dst": "10.1.0.0/16"}]}))]
    #[case(json!({"ips": [{"gateway": "fc00::1"}], "routes": [{"dst": "10.1.0.0/16"}, {"dst": "x"}, {}]}))]
    #[case(json!({"ips": [{"gateway": "10.1.17.1"}], "routes": {}}))]
    fn without_a_gateway_nothing_changes(#[case] result: Value) {
        assert_eq!(Value::from(with_gateways(object(result.clone()))), result);
    }
}
