//! Which entries of flannel's device flannel has made, by what they look like: stock flannel's look the same, and are
//! adopted. Others on it are their makers'.

use std::collections::BTreeSet;
use std::net::IpAddr;

use flannel_common::Mac;
use flannel_model::config::cidr::is_subnet_of;
use flannel_model::family::{Family, Subnets};
use flannel_model::object::Object;
use ipnetwork::IpNetwork;

/// Drops from `objects` what only stands on the device: `networks` are the whole networks, and `subnets` this host's,
/// which are as long as those of peers.
pub fn retain_ours(objects: &mut Vec<Object>, device: Option<u32>, networks: &Subnets, subnets: &Subnets) {
    let is_here = |index: u32| Some(index) == device;
    let vteps: BTreeSet<Mac> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Neighbour { ip, mac, .. } if is_gateway(*ip, subnets) => Some(*mac),
            _ => None,
        })
        .collect();
    objects.retain(|object| match *object {
        Object::Route { subnet, via, device, onlink } if is_here(device) => match via {
            Some(gateway) => onlink && gateway == subnet.network(),
            // The udp backend's, also of a network that was larger or smaller before.
            None => networks.get(subnet.into()).is_some_and(|network| {
                is_subnet_of(network, subnet) || is_subnet_of(subnet, network) && subnet.ip() == network.ip()
            }),
        },
        Object::Neighbour { device, ip, .. } if is_here(device) => is_gateway(ip, subnets),
        Object::Fdb { device, mac, .. } if is_here(device) => vteps.contains(&mac),
        _ => true,
    });
}

/// Whether the address is the first one of a subnet, by which a peer's is reached. No pod has it.
fn is_gateway(address: IpAddr, subnets: &Subnets) -> bool {
    let Some(subnet) = subnets.get(Family::from(address)) else { return false };
    IpNetwork::new(address, subnet.prefix()).is_ok_and(|around| around.network() == address)
}

#[cfg(test)]
mod tests {
    use flannel_common::Mac;
    use flannel_model::family::Subnets;
    use flannel_model::object::Object;
    use ipnetwork::IpNetwork;
    use rstest::rstest;

    use super::retain_ours;

    const DEVICE: u32 = 3;
    const VTEP: Mac = Mac([2; 6]);

    fn subnets(text: &str) -> Subnets {
        text.parse::<IpNetwork>().unwrap().into()
    }

    fn route(subnet: &str, via: Option<&str>, onlink: bool) -> Object {
        let via = via.map(|via| via.parse().unwrap());
        Object::Route { subnet: subnet.parse().unwrap(), via, device: DEVICE, onlink }
    }

    fn neighbour(ip: &str, mac: Mac) -> Object {
        Object::Neighbour { device: DEVICE, ip: ip.parse().unwrap(), mac }
    }

    fn entry(mac: Mac) -> Object {
        Object::Fdb { device: DEVICE, mac, vtep: [192, 168, 77, 12].into(), vni: None, port: None }
    }

    #[rstest]
    #[case::route_to_a_peer(route("10.5.7.0/24", Some("10.5.7.0"), true), true)]
    #[case::of_a_former_network(route("10.9.7.0/24", Some("10.9.7.0"), true), true)]
    #[case::to_the_network(route("10.5.0.0/16", None, false), true)]
    #[case::of_the_user(route("10.5.200.0/24", None, false), false)]
    #[case::of_the_user_elsewhere(route("198.51.100.0/24", None, false), false)]
    #[case::by_another_gateway(route("198.51.100.0/24", Some("10.5.7.0"), true), false)]
    #[case::neighbour_of_a_peer(neighbour("10.5.7.0", VTEP), true)]
    #[case::neighbour_of_the_user(neighbour("10.5.200.5", VTEP), false)]
    #[case::entry_of_a_peer(entry(VTEP), true)]
    #[case::entry_of_the_user(entry(Mac([4; 6])), false)]
    fn what_is_flannels(#[case] object: Object, #[case] is_ours: bool) {
        let peer = neighbour("10.5.7.0", VTEP);
        let mut objects = vec![peer.clone(), object.clone()];
        objects.dedup();
        retain_ours(&mut objects, Some(DEVICE), &subnets("10.5.0.0/16"), &subnets("10.5.1.0/24"));
        assert_eq!(objects.contains(&object), is_ours);
        assert!(objects.contains(&peer));
    }

    #[test]
    fn what_stands_on_other_devices_bears_our_protocol() {
        let direct =
            Object::Route { subnet: "10.5.7.0/24".parse().unwrap(), via: None, device: 2, onlink: false };
        let mut objects = vec![direct.clone()];
        retain_ours(&mut objects, Some(DEVICE), &subnets("10.5.0.0/16"), &subnets("10.5.1.0/24"));
        assert_eq!(objects, [direct]);
    }
}
