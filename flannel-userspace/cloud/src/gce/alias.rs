//! Alias ranges of an instance's interface: the network delivers their addresses to it, without any route.

use ipnetwork::IpNetwork;

use super::place::Place;
use super::resources::{AliasChange, AliasRange, Instance};
use crate::{CloudError, Route, Table, Target};

/// Those of one interface, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aliases {
    fingerprint: String,
    ranges: Vec<AliasRange>,
}

impl Aliases {
    /// Those of `interface`.
    pub(super) fn of(instance: &Instance, interface: &str) -> Result<Self, CloudError> {
        let found = instance.network_interfaces.iter().find(|found| found.name == interface);
        let interface = found.ok_or_else(|| {
            CloudError::garbage("instances.get", format!("the instance has no {interface}"))
        })?;
        Ok(Self { fingerprint: interface.fingerprint.clone(), ranges: interface.alias_ip_ranges.clone() })
    }

    /// The same as a route table of its own.
    pub(super) fn table(&self, place: &Place) -> Table {
        let route = |range: &AliasRange| {
            let destination = range.ip_cidr_range.parse().ok()?;
            Some(Route { destination, target: Target::Own, is_dead: false, is_flannels: true, id: None })
        };
        Table {
            id: format!("{} of {}", place.interface, place.instance),
            routes: self.ranges.iter().filter_map(route).collect(),
            used: self.ranges.len(),
            limit: None,
        }
    }

    /// All of them and `subnet`, taken from that secondary range of the subnetwork.
    pub(super) fn with(&self, subnet: IpNetwork, secondary_range: Option<&str>) -> AliasChange {
        let new = AliasRange {
            ip_cidr_range: subnet.to_string(),
            subnetwork_range_name: secondary_range.map(str::to_owned),
        };
        self.change(self.others(subnet).chain([new]))
    }

    /// All of them but `subnet`.
    pub(super) fn without(&self, subnet: IpNetwork) -> AliasChange {
        self.change(self.others(subnet))
    }

    fn others(&self, subnet: IpNetwork) -> impl Iterator<Item = AliasRange> {
        self.ranges.iter().filter(move |range| range.ip_cidr_range.parse() != Ok(subnet)).cloned()
    }

    fn change(&self, ranges: impl Iterator<Item = AliasRange>) -> AliasChange {
        AliasChange { fingerprint: self.fingerprint.clone(), alias_ip_ranges: ranges.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::Aliases;
    use crate::gce::resources::Instance;

    const INSTANCE: &str = r#"{"selfLink":"https://x/projects/p/zones/z/instances/i","networkInterfaces":[
        {"name":"nic0","fingerprint":"f0=","networkIP":"10.0.0.5"},
        {"name":"nic1","fingerprint":"f1=","aliasIpRanges":[{"ipCidrRange":"10.9.0.0/28"},
         {"ipCidrRange":"10.5.1.0/24","subnetworkRangeName":"pods"}]}]}"#;

    fn aliases(interface: &str) -> Aliases {
        Aliases::of(&serde_json::from_str::<Instance>(INSTANCE).unwrap(), interface).unwrap()
    }

    #[test]
    fn a_change_keeps_the_others() {
        let change = aliases("nic1").with("10.5.2.0/24".parse().unwrap(), Some("pods"));
        assert_eq!(
            serde_json::to_string(&change).unwrap(),
            r#"{"fingerprint":"f1=","aliasIpRanges":[{"ipCidrRange":"10.9.0.0/28"},{"ipCidrRange":"10.5.1.0/24","subnetworkRangeName":"pods"},{"ipCidrRange":"10.5.2.0/24","subnetworkRangeName":"pods"}]}"#
        );
        let change = aliases("nic1").without("10.5.1.0/24".parse().unwrap());
        assert_eq!(
            serde_json::to_string(&change).unwrap(),
            r#"{"fingerprint":"f1=","aliasIpRanges":[{"ipCidrRange":"10.9.0.0/28"}]}"#
        );
        assert_eq!(aliases("nic0").with("10.5.2.0/24".parse().unwrap(), None).alias_ip_ranges.len(), 1);
    }
}
