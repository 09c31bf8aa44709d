//! Bridges with pods behind their ports.

use std::collections::{BTreeMap, BTreeSet};

use flannel_common::Mac;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::link::{Kind, Link};
use super::objects::link_layer_address;
use super::{Error, Netlink, collect};

/// Which pods are behind which ports of the bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeFdb {
    /// Interface indexes of the bridges at which nobody else does anything to packets.
    pub bridges: BTreeSet<u32>,
    /// Interface index of the port, by that of the bridge and the pod's Ethernet address; and again by that of the
    /// port itself, which tells that the pod is behind it, whatever its VLAN.
    pub ports: BTreeMap<(u32, Mac), u32>,
    /// Interface indexes of the ports of these bridges that are veth pairs with pods, without qdiscs or filters of
    /// others; with the index of the bridge.
    pub pods: BTreeMap<u32, u32>,
}

impl Netlink {
    /// The bridges with these `names`, and the pods their ports have learned.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn bridge_fdb(&self, names: &[String]) -> Result<BridgeFdb, Error> {
        let mut fdb = BridgeFdb::default();
        for name in names {
            let Some(link) = self.link(name).await?.filter(|link| link.kind == Kind::Bridge) else {
                continue;
            };
            fdb.bridges.insert(link.index);
            fdb.ports.append(&mut self.ports(link.index).await?);
        }
        if !fdb.bridges.is_empty() {
            for bridge in self.treated_by_others(&fdb.bridges).await? {
                fdb.bridges.remove(&bridge);
            }
            fdb.pods = self.pods(&fdb.bridges).await?;
        }
        Ok(fdb)
    }

    /// A packet redirected to a pod would bypass queues that shape its traffic, and filters of others.
    async fn pods(&self, bridges: &BTreeSet<u32>) -> Result<BTreeMap<u32, u32>, Error> {
        let pod = |link: &Link| {
            let is_pair = link.peer_in_other_netns && link.kind == Kind::Other("veth".to_owned());
            let bridge = link.controller.filter(|bridge| is_pair && bridges.contains(bridge))?;
            Some((link.index, bridge))
        };
        let mut pods: BTreeMap<u32, u32> = self.links().await?.iter().filter_map(pod).collect();
        for interface in self.treated_by_others(&pods.keys().copied().collect()).await? {
            pods.remove(&interface);
        }
        Ok(pods)
    }

    async fn ports(&self, bridge: u32) -> Result<BTreeMap<(u32, Mac), u32>, Error> {
        let mut request = self.0.neighbours().get().set_address_family(AddressFamily::Bridge);
        request.message_mut().attributes.push(NeighbourAttribute::Controller(bridge));
        let pick = |message: NeighbourMessage| {
            let mac = link_layer_address(&message)?;
            is_learned(bridge, &message).then_some((has_vlan(&message), mac, message.header.ifindex))
        };
        let learned: Vec<(bool, Mac, u32)> =
            collect(request.execute(), "list the pods behind bridges", pick).await?;
        let by_port = learned.iter().map(|(_, mac, port)| ((*port, *mac), *port));
        // On a bridge that divides its ports into VLANs the address alone does not tell the port.
        let by_bridge = learned.iter().filter(|(has_vlan, ..)| !has_vlan);
        Ok(by_port.chain(by_bridge.map(|(_, mac, port)| ((bridge, *mac), *port))).collect())
    }
}

/// Whether the entry is of somebody behind a port. Permanent ones are the ports' own.
fn is_learned(bridge: u32, message: &NeighbourMessage) -> bool {
    let is_of_bridge = |attribute: &NeighbourAttribute| *attribute == NeighbourAttribute::Controller(bridge);
    message.header.state != NeighbourState::Permanent
        && message.header.ifindex != bridge
        && message.attributes.iter().any(is_of_bridge)
}

fn has_vlan(message: &NeighbourMessage) -> bool {
    message.attributes.iter().any(|attribute| matches!(attribute, NeighbourAttribute::Vlan(_)))
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, ip, run};

    /// A bridge with one port; the other end of the port's pair has the address 02:00:00:00:00:09.
    fn add_bridge_with_pod() {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("link add veth1 type veth peer name pod1 address 02:00:00:00:00:09");
        ip("link set veth1 master cni0 up");
        ip("link set pod1 up");
    }

    #[test]
    fn learned_pod_is_found_behind_its_port() {
        in_namespace(async |netlink| {
            add_bridge_with_pod();
            run("bridge", "fdb replace 02:00:00:00:00:09 dev veth1 master dynamic");
            let bridge = netlink.link("cni0").await.unwrap().unwrap().index;
            let port = netlink.link("veth1").await.unwrap().unwrap().index;
            let fdb = netlink.bridge_fdb(&["cni0".to_owned(), "absent".to_owned()]).await.unwrap();
            assert_eq!(fdb.bridges, [bridge].into());
            let mac = "02:00:00:00:00:09".parse().unwrap();
            let expected = [((bridge, mac), port), ((port, mac), port)].into();
            assert_eq!(fdb.ports, expected, "the ports' own addresses are left out");
        });
    }

    #[test]
    fn an_interface_of_the_name_that_is_no_bridge_is_not_served() {
        in_namespace(async |netlink| {
            ip("link add cni0 type veth peer name other");
            assert_eq!(netlink.bridge_fdb(&["cni0".to_owned()]).await.unwrap(), Default::default());
        });
    }
}
