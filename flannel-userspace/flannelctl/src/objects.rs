//! The objects in the kernel by which peers are reached, in iproute2's words.

use flannel_model::object::Object;
use serde::Serialize;

use super::hooks::Interface;

/// An object in the kernel or in a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Thing {
    /// Its kind: `neighbour`, `fdb`, `peer`, `route` and others.
    pub(super) kind: &'static str,
    /// Which.
    pub(super) text: String,
}

impl From<&Object> for Thing {
    fn from(object: &Object) -> Self {
        match object {
            Object::Neighbour { device, ip, mac } => {
                Self { kind: "neighbour", text: format!("{ip} dev {} lladdr {mac}", name(*device)) }
            }
            Object::Fdb { device, mac, vtep, vni, port } => {
                let vni = vni.map(|vni| format!(" vni {vni}")).unwrap_or_default();
                let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
                Self { kind: "fdb", text: format!("{mac} dev {} dst {vtep}{port}{vni}", name(*device)) }
            }
            Object::Peer { subnet, public_ip, mac, direct, format } => {
                let path = if *direct { "direct" } else { "tunnel" };
                let format = format.map(|format| format!(", {format}")).unwrap_or_default();
                Self { kind: "peer", text: format!("{subnet} at {public_ip} vtep {mac} by {path}{format}") }
            }
            Object::Route { subnet, via, device, onlink } => {
                let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                let onlink = if *onlink { " onlink" } else { "" };
                Self { kind: "route", text: format!("{subnet}{via} dev {}{onlink}", name(*device)) }
            }
        }
    }
}

/// Name of an interface; its index where there is none with it.
pub(super) fn name(index: u32) -> String {
    Interface::new(index).name.unwrap_or_else(|| format!("if{index}"))
}

#[cfg(test)]
mod tests {
    use flannel_common::{Mac, Vni};
    use flannel_model::object::Object;
    use rstest::rstest;

    use super::Thing;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[rstest]
    #[case(Object::Neighbour { device: 1, ip: [10, 5, 2, 0].into(), mac: MAC }, "neighbour 10.5.2.0 dev lo lladdr 02:00:00:00:00:01")]
    #[case(
        Object::Fdb { device: 1, mac: MAC, vtep: [192, 0, 2, 1].into(), vni: None, port: None },
        "fdb 02:00:00:00:00:01 dev lo dst 192.0.2.1"
    )]
    #[case(
        Object::Fdb { device: 1, mac: MAC, vtep: [192, 0, 2, 1].into(), vni: Vni::new(7), port: Some(4789) },
        "fdb 02:00:00:00:00:01 dev lo dst 192.0.2.1 port 4789 vni 7"
    )]
    #[case(
        Object::Route { subnet: "10.5.2.0/24".parse().unwrap(), via: Some([10, 5, 2, 0].into()), device: 4_000_000, onlink: true },
        "route 10.5.2.0/24 via 10.5.2.0 dev if4000000 onlink"
    )]
    #[case(
        Object::Peer { subnet: "10.5.2.0/24".parse().unwrap(), public_ip: [192, 0, 2, 1].into(), mac: MAC, direct: true, format: None },
        "peer 10.5.2.0/24 at 192.0.2.1 vtep 02:00:00:00:00:01 by direct"
    )]
    fn words(#[case] object: Object, #[case] text: &str) {
        let thing = Thing::from(&object);
        assert_eq!(format!("{} {}", thing.kind, thing.text), text);
    }
}
