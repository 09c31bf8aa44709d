//! The names of a cluster's routes. A route's name is unique in its project, which several clusters may share.

use ipnetwork::Ipv4Network;
use sha2::{Digest as _, Sha256};

/// What every name begins with.
const PREFIX: &str = "flannel";

/// Characters of the hash in a name: with the longest subnet a name has 39 of the 63 that are possible.
const HASH_LEN: usize = 12;

/// A cluster among all that have routes in the same project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    hash: String,
}

impl Cluster {
    /// The cluster that its hosts call `cluster`, in the VPC network at `vpc`, which has a path of its own among all networks
    /// of all projects.
    pub(super) fn of(vpc: &str, cluster: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [vpc, cluster] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let mut hash = hex::encode(hash.finalize());
        hash.truncate(HASH_LEN);
        Self { hash }
    }

    /// The name of the route to `subnet`, of the form that RFC 1035 asks for.
    pub(super) fn route_name(&self, subnet: Ipv4Network) -> String {
        format!("{PREFIX}-{}-{}", self.hash, dashed(subnet))
    }
}

/// The name that stock flannel gives the route to `subnet`, in whichever cluster.
pub(super) fn stock_route_name(subnet: Ipv4Network) -> String {
    format!("{PREFIX}-{}", dashed(subnet))
}

fn dashed(subnet: Ipv4Network) -> String {
    subnet.to_string().replace(['.', '/'], "-")
}

#[cfg(test)]
mod tests {
    use ipnetwork::Ipv4Network;
    use proptest::prelude::*;

    use super::{Cluster, stock_route_name};

    const VPC: &str = "projects/shop/global/networks/default";

    const CLUSTER: &str = "/coreos.com/network 10.5.0.0/16";

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    #[test]
    fn the_name_of_stock_flannel() {
        assert_eq!(stock_route_name(net("10.5.1.0/24")), "flannel-10-5-1-0-24");
    }

    #[test]
    fn two_clusters_share_a_project() {
        let ours = Cluster::of(VPC, CLUSTER);
        let others = [
            Cluster::of("projects/shop/global/networks/second", CLUSTER),
            Cluster::of(VPC, "/second 10.5.0.0/16"),
            Cluster::of(VPC, "/coreos.com/network 10.6.0.0/16"),
        ];
        for other in others {
            assert_ne!(ours.route_name(net("10.5.1.0/24")), other.route_name(net("10.5.1.0/24")));
        }
        assert_eq!(ours, Cluster::of(VPC, CLUSTER), "every host agrees");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Cluster::of("a", "bc"), Cluster::of("ab", "c"));
    }

    proptest! {
        #[test]
        fn a_name_is_one_of_rfc_1035(vpc: String, cluster: String, address: [u8; 4], len in 0u8..=32) {
            let subnet = Ipv4Network::new(address.into(), len).unwrap();
            let name = Cluster::of(&vpc, &cluster).route_name(subnet);
            prop_assert!((1..=63).contains(&name.len()), "{name}");
            prop_assert!(name.starts_with(|first: char| first.is_ascii_lowercase()));
            prop_assert!(name.ends_with(|last: char| last.is_ascii_digit()));
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        }
    }
}
