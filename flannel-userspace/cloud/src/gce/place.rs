//! What the metadata server says of this instance.
//! <https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys>

use std::net::Ipv4Addr;

use serde::Deserialize;

/// The path of the answer that [`InstanceMetadata`] is read from.
pub(super) const INSTANCE: &str = "/computeMetadata/v1/instance/?recursive=true";
/// The path of the project's name.
pub(super) const PROJECT: &str = "/computeMetadata/v1/project/project-id";
/// The path of the token of the instance's service account.
pub(super) const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// Every request and every answer has this header: what comes without is from somebody else.
pub(super) const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");

/// An instance as its metadata server describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceMetadata {
    /// Its name in the API, which its host name need not resemble.
    pub(super) name: String,
    /// `projects/<number>/zones/<zone>`.
    pub(super) zone: String,
    /// Its interfaces, `nic0` first.
    #[serde(default)]
    pub(super) network_interfaces: Vec<InterfaceMetadata>,
}

/// One of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct InterfaceMetadata {
    /// Its primary address; empty where it has IPv6 alone.
    #[serde(default)]
    pub(super) ip: String,
    /// `projects/<number>/networks/<name>`: with a shared VPC, the number is the host project's.
    pub(super) network: String,
}

/// Where this instance is, as far as calls need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The instance's name.
    pub(super) instance: String,
    /// Its zone.
    pub(super) zone: String,
    /// The project that it is in.
    pub(super) project: String,
    /// The interface by which its pods are reached, in the API's words: `nic0` and so on.
    pub(super) interface: String,
    /// That interface's primary address.
    pub(super) address: Ipv4Addr,
    /// The project that the VPC network is in: another one with a shared VPC.
    pub(super) network_project: String,
    /// The name of the VPC network.
    pub(super) network: String,
}

/// The metadata do not say where this instance is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetadataError {
    /// A value is no path of the form that is documented.
    #[error("error getting {what} metadata: {value:?} is not of the form {form}")]
    Path {
        /// Of what.
        what: &'static str,
        /// The value.
        value: String,
        /// What it should look like.
        form: &'static str,
    },
    /// No interface has the address.
    #[error(
        "no interface of the instance {instance} has {address} as its primary address (they have {others}): \
         choose one of its interfaces with --iface, and leave --public-ip out"
    )]
    NoInterface {
        /// The instance's name.
        instance: String,
        /// The address that is announced.
        address: Ipv4Addr,
        /// Those of the instance.
        others: String,
    },
}

impl InstanceMetadata {
    /// Where the instance is, whose interface with `address` is to carry the packets.
    ///
    /// # Errors
    /// There is no such interface, or a path is not of the documented form.
    pub(super) fn place(&self, project: &str, address: Ipv4Addr) -> Result<Place, MetadataError> {
        for (what, name) in [("instance name", self.name.as_str()), ("project", project)] {
            if !is_name(name) {
                return Err(MetadataError::Path { what, value: name.to_owned(), form: "a name" });
            }
        }
        let (number, interface) = self
            .network_interfaces
            .iter()
            .enumerate()
            .find(|(_, interface)| interface.ip.parse() == Ok(address))
            .ok_or_else(|| self.no_interface(address))?;
        let (_, zone) = project_and_name(&self.zone, "zones").ok_or_else(|| MetadataError::Path {
            what: "instance zone",
            value: self.zone.clone(),
            form: "projects/<number>/zones/<zone>",
        })?;
        let (network_project, network) =
            project_and_name(&interface.network, "networks").ok_or_else(|| MetadataError::Path {
                what: "network",
                value: interface.network.clone(),
                form: "projects/<number>/networks/<network>",
            })?;
        Ok(Place {
            instance: self.name.clone(),
            zone: zone.to_owned(),
            project: project.to_owned(),
            interface: format!("nic{number}"),
            address,
            network_project: network_project.to_owned(),
            network: network.to_owned(),
        })
    }

    fn no_interface(&self, address: Ipv4Addr) -> MetadataError {
        let others = self.network_interfaces.iter().map(|interface| interface.ip.as_str());
        MetadataError::NoInterface {
            instance: self.name.clone(),
            address,
            others: others.collect::<Vec<_>>().join(", "),
        }
    }
}

/// Splits `projects/P/<collection>/N`, or the same with `global` before the collection.
fn project_and_name<'a>(path: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    match *path.split('/').collect::<Vec<_>>() {
        ["projects", project, kind, name] | ["projects", project, "global", kind, name]
            if kind == collection && is_name(project) && is_name(name) =>
        {
            Some((project, name))
        }
        _ => None,
    }
}

/// Whether it is what projects (`example.com:shop` among them), zones, networks and instances are called: it can be part of
/// a path.
pub(super) fn is_name(text: &str) -> bool {
    let may_be_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
    !text.is_empty() && text != ".." && text.bytes().all(may_be_in_name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{InstanceMetadata, Place};

    /// What an instance with two interfaces is told, the members that nobody asks for left out.
    const TWO_INTERFACES: &str = r#"{
        "hostname": "shop-1.example.com", "id": 4711, "name": "shop-1", "zone": "projects/12345/zones/europe-west1-b",
        "networkInterfaces": [
            {"ip": "10.0.1.5", "mac": "42:01:0a:00:01:05", "mtu": 1460, "network": "projects/12345/networks/front",
             "subnetmask": "255.255.255.0", "gateway": "10.0.1.1", "ipAliases": []},
            {"ip": "10.132.0.7", "network": "projects/999/networks/shared", "subnetmask": "255.255.240.0"}]}"#;

    fn metadata() -> InstanceMetadata {
        serde_json::from_str(TWO_INTERFACES).unwrap()
    }

    #[test]
    fn the_interface_with_the_address_is_the_one() {
        let place = metadata().place("shop", "10.132.0.7".parse().unwrap()).unwrap();
        let expected = Place {
            instance: "shop-1".to_owned(),
            zone: "europe-west1-b".to_owned(),
            project: "shop".to_owned(),
            interface: "nic1".to_owned(),
            address: "10.132.0.7".parse().unwrap(),
            network_project: "999".to_owned(),
            network: "shared".to_owned(),
        };
        assert_eq!(place, expected);
    }

    #[test]
    fn another_address_is_refused_with_those_there_are() {
        let error = metadata().place("shop", "192.0.2.1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1") && error.contains("10.0.1.5, 10.132.0.7"), "{error}");
    }

    #[rstest]
    #[case::page("<html>")]
    #[case::name_alone("front")]
    #[case::no_name("projects/12345/networks/")]
    #[case::no_project("projects//networks/front")]
    #[case::up("projects/../networks/front")]
    #[case::query("projects/12345/networks/front?x")]
    #[case::other_collection("projects/12345/zones/front")]
    fn a_network_of_another_form_is_refused(#[case] network: &str) {
        let mut metadata = metadata();
        network.clone_into(&mut metadata.network_interfaces[0].network);
        let error = metadata.place("shop", "10.0.1.5".parse().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("error getting network metadata: "), "{error}");
    }
}
