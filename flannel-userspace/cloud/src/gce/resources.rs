//! What the Compute Engine API takes and answers, as far as it matters here.
//! <https://cloud.google.com/compute/docs/reference/rest/v1>

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

/// A route of a VPC network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Route {
    /// Its number: unlike a name, a later route never has it again.
    pub(super) id: String,
    /// Its name, unique in the project.
    pub(super) name: String,
    /// Where it leads.
    pub(super) dest_range: String,
    /// The URL of the network whose packets it steers.
    pub(super) network: String,
    /// Of several to one destination, those with the smallest number count.
    pub(super) priority: u32,
    /// The address that its packets go to.
    pub(super) next_hop_ip: Option<String>,
    /// The URL of the instance that they go to.
    pub(super) next_hop_instance: Option<String>,
    /// The network itself: the route to one of its subnetworks, or of a peered network's.
    pub(super) next_hop_network: Option<String>,
    /// The peered network: nobody can change the route here.
    pub(super) next_hop_peering: Option<String>,
    /// Only packets of instances with one of these tags; of all, if there is none.
    pub(super) tags: Vec<String>,
    /// What somebody wrote about it.
    pub(super) description: String,
    /// What the cloud has to say about it, such as that the next hop is gone.
    pub(super) warnings: Vec<Warning>,
}

/// A warning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Warning {
    /// Of what kind.
    pub(super) code: String,
    /// In words.
    pub(super) message: String,
}

impl Route {
    /// Whether somebody wrote it, and counts against what a project may have.
    pub(super) const fn is_static(&self) -> bool {
        self.next_hop_network.is_none() && self.next_hop_peering.is_none()
    }

    /// Whether the cloud says that its next hop is gone or stopped.
    pub(super) fn leads_nowhere(&self) -> bool {
        let says = |code: &str| self.warnings.iter().any(|warning| warning.code == code);
        ["NEXT_HOP_NOT_RUNNING", "NEXT_HOP_INSTANCE_NOT_FOUND", "NEXT_HOP_ADDRESS_NOT_ASSIGNED"]
            .into_iter()
            .any(says)
    }
}

/// A page of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Routes {
    /// The routes.
    pub(super) items: Vec<Route>,
    /// What the next page is asked for with, if there is one.
    pub(super) next_page_token: Option<String>,
}

/// A route that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewRoute {
    /// Its name.
    pub(super) name: String,
    /// Where it leads.
    pub(super) dest_range: Ipv4Network,
    /// The URL of the network.
    pub(super) network: String,
    /// The primary address of the interface that its packets go to. An instance by its URL would have to be in the
    /// project of the network.
    pub(super) next_hop_ip: Ipv4Addr,
    /// Of several routes to one destination, those with the smallest number count.
    pub(super) priority: u32,
    /// No restriction.
    pub(super) tags: [String; 0],
    /// Whose it is, for people.
    pub(super) description: String,
}

/// An operation, which goes on after the answer that announces it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    /// Its name.
    pub(super) name: String,
    /// How far it is.
    pub(super) status: Progress,
    /// Why it has failed, if it has.
    #[serde(default)]
    pub(super) error: Option<OperationErrors>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Progress {
    /// It has not begun.
    Pending,
    /// It has.
    Running,
    /// It has ended, well or not.
    Done,
}

/// Why an operation has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OperationErrors {
    /// The reasons.
    pub(super) errors: Vec<OperationError>,
}

/// One reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OperationError {
    /// Of what kind, such as `QUOTA_EXCEEDED`.
    pub(super) code: String,
    /// In words.
    pub(super) message: String,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instance {
    /// Its URL.
    pub(super) self_link: String,
    /// Whether it may send and receive packets of other addresses than its own.
    #[serde(default)]
    pub(super) can_ip_forward: bool,
    /// Its interfaces.
    #[serde(default)]
    pub(super) network_interfaces: Vec<Interface>,
}

/// An interface of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Interface {
    /// `nic0` and so on.
    pub(super) name: String,
    /// Changes with each change: a request that names a former one is refused.
    pub(super) fingerprint: String,
    /// Addresses that it has besides the primary one.
    #[serde(default)]
    pub(super) alias_ip_ranges: Vec<AliasRange>,
}

/// Addresses of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AliasRange {
    /// Which: a network in CIDR notation, or one address.
    pub(super) ip_cidr_range: String,
    /// The subnetwork's secondary range that they are taken from; the primary one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subnetwork_range_name: Option<String>,
}

/// The addresses that an interface is to have, in place of all that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AliasChange {
    /// That of the interface that was read.
    pub(super) fingerprint: String,
    /// All of them.
    pub(super) alias_ip_ranges: Vec<AliasRange>,
}

/// A VPC network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Network {
    /// Its URL, as routes name it.
    pub(super) self_link: String,
}

/// A project.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Project {
    /// What it may have of each kind of thing.
    pub(super) quotas: Vec<Quota>,
}

/// How much of something a project may have.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Quota {
    /// Of what.
    pub(super) metric: String,
    /// The most.
    pub(super) limit: f64,
}

impl Project {
    /// How many routes it may have.
    pub(super) fn route_limit(&self) -> Option<usize> {
        let quota = self.quotas.iter().find(|quota| quota.metric == "ROUTES")?;
        // Quotas are whole numbers written as floating-point ones.
        format!("{:.0}", quota.limit).parse().ok()
    }
}

/// The project of a resource and its path there, from a URL of it or a path: hosts and versions of the API come in
/// several forms.
pub(super) fn path_of(url: &str) -> Option<&str> {
    let start = url.find("projects/").filter(|start| *start == 0 || url[..*start].ends_with('/'))?;
    Some(&url[start..])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{NewRoute, Operation, Progress, Project, Routes, path_of};

    #[rstest]
    #[case(
        "https://www.googleapis.com/compute/v1/projects/p/global/networks/n",
        Some("projects/p/global/networks/n")
    )]
    #[case(
        "https://compute.googleapis.com/compute/beta/projects/p/global/networks/n",
        Some("projects/p/global/networks/n")
    )]
    #[case("projects/p/global/networks/n", Some("projects/p/global/networks/n"))]
    #[case("https://example.com/myprojects/p", None)]
    #[case("", None)]
    fn one_resource_has_several_urls(#[case] url: &str, #[case] path: Option<&str>) {
        assert_eq!(path_of(url), path);
    }

    #[test]
    fn routes_of_a_network() {
        let page = r#"{"kind":"compute#routeList","items":[
            {"kind":"compute#route","id":"1","name":"default-route-1","destRange":"10.132.0.0/20","priority":0,
             "network":"https://www.googleapis.com/compute/v1/projects/p/global/networks/n",
             "nextHopNetwork":"https://www.googleapis.com/compute/v1/projects/p/global/networks/n"},
            {"kind":"compute#route","id":"2","name":"flannel-10-5-1-0-24","destRange":"10.5.1.0/24","priority":1000,
             "network":"https://www.googleapis.com/compute/v1/projects/p/global/networks/n",
             "nextHopInstance":"https://www.googleapis.com/compute/v1/projects/p/zones/z/instances/i",
             "warnings":[{"code":"NEXT_HOP_NOT_RUNNING","message":"down"}]},
            {"id":"3","name":"six","destRange":"2600::/64","nextHopIp":"2600::1"}],
            "nextPageToken":"more"}"#;
        let page: Routes = serde_json::from_str(page).unwrap();
        assert_eq!(page.next_page_token.as_deref(), Some("more"));
        assert_eq!(page.items.iter().map(super::Route::is_static).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(
            page.items.iter().map(super::Route::leads_nowhere).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn a_network_without_routes_has_no_items() {
        assert_eq!(serde_json::from_str::<Routes>(r#"{"kind":"compute#routeList"}"#).unwrap().items, []);
    }

    #[rstest]
    #[case("PENDING", Progress::Pending)]
    #[case("RUNNING", Progress::Running)]
    #[case("DONE", Progress::Done)]
    fn progress_of_an_operation(#[case] status: &str, #[case] progress: Progress) {
        let operation = format!(r#"{{"name":"operation-1","status":"{status}","progress":50}}"#);
        let operation: Operation = serde_json::from_str(&operation).unwrap();
        assert_eq!((operation.status, operation.error), (progress, None));
    }

    #[test]
    fn a_new_route_as_the_api_wants_it() {
        let route = NewRoute {
            name: "flannel-abc-10-5-1-0-24".to_owned(),
            dest_range: "10.5.1.0/24".parse().unwrap(),
            network: "projects/p/global/networks/n".to_owned(),
            next_hop_ip: "10.132.0.7".parse().unwrap(),
            priority: 1000,
            tags: [],
            description: String::new(),
        };
        assert_eq!(
            serde_json::to_string(&route).unwrap(),
            r#"{"name":"flannel-abc-10-5-1-0-24","destRange":"10.5.1.0/24","network":"projects/p/global/networks/n","nextHopIp":"10.132.0.7","priority":1000,"tags":[],"description":""}"#
        );
    }

    #[test]
    fn quota_of_routes() {
        let project = r#"{"quotas":[{"metric":"NETWORKS","limit":5,"usage":1},{"metric":"ROUTES","limit":250,"usage":12}]}"#;
        let project: Project = serde_json::from_str(project).unwrap();
        assert_eq!(project.route_limit(), Some(250));
        assert_eq!(serde_json::from_str::<Project>("{}").unwrap().route_limit(), None);
    }
}
