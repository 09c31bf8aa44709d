//! What Alibaba Cloud answers, as far as it matters here.
//! <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpc-2016-04-28-overview>

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{CloudError, Route, Target, Trouble};

/// What a route entry is once it works.
const AVAILABLE: &str = "Available";

/// Of which kind one is that somebody has made.
const CUSTOM: &str = "Custom";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    code: String,
    #[serde(default)]
    message: String,
}

/// What an answer to `action` says.
///
/// # Errors
/// The cloud refuses, or the answer is none.
pub(super) fn decode<T: DeserializeOwned>(
    action: &'static str,
    status: u16,
    body: &[u8],
) -> Result<T, CloudError> {
    if status == 200 {
        return serde_json::from_slice(body).map_err(|error| CloudError::garbage(action, error));
    }
    let Ok(Failure { code, message }) = serde_json::from_slice(body) else {
        return Err(CloudError::of_no_api(action, status));
    };
    Err(CloudError::new(trouble(status, &code), action, format!("{code}: {message}")))
}

/// What a code of an error means. A code may have a second part, which says more.
fn trouble(status: u16, code: &str) -> Trouble {
    match code.split('.').next().unwrap_or(code) {
        "Throttling" => Trouble::Throttled,
        "Forbidden"
        | "NoPermission"
        | "InvalidAccessKeyId"
        | "InvalidSecurityToken"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingSecurityToken" => Trouble::Denied,
        "QuotaExceeded" => Trouble::Full,
        // Another change of the same table is under way.
        "TaskConflict"
        | "OperationConflict"
        | "IncorrectRouteEntryStatus"
        | "IncorrectVpcStatus"
        | "IncorrectRouteTableStatus"
        | "LastTokenProcessing" => Trouble::Unavailable,
        "RouterEntryConflict" | "RouteConflict" => Trouble::Conflict,
        "ServiceUnavailable" | "InternalError" => Trouble::Unavailable,
        "InvalidRouteEntry" if code.ends_with(".NotFound") => Trouble::NotFound,
        _ if code == "InvalidCIDRBlock.Duplicate" || code == "InvalidCidrBlock.Duplicate" => {
            Trouble::Conflict
        }
        _ if status == 404 => Trouble::NotFound,
        _ if status >= 500 => Trouble::Unavailable,
        _ => Trouble::Refused,
    }
}

/// The answer to `DescribeVpcs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Vpcs {
    vpcs: VpcList,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VpcList {
    #[serde(default)]
    vpc: Vec<Vpc>,
}

/// A VPC.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Vpc {
    /// Its router.
    #[serde(rename = "VRouterId")]
    pub(super) router_id: String,
    cidr_block: String,
    #[serde(default)]
    secondary_cidr_blocks: SecondaryRanges,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SecondaryRanges {
    secondary_cidr_block: Vec<String>,
}

impl Vpcs {
    /// The first one.
    pub(super) fn first(self) -> Option<Vpc> {
        self.vpcs.vpc.into_iter().next()
    }
}

impl Vpc {
    /// The ranges of which hosts have addresses.
    pub(super) fn ranges(&self) -> Vec<IpNetwork> {
        let ranges =
            std::iter::once(&self.cidr_block).chain(&self.secondary_cidr_blocks.secondary_cidr_block);
        ranges.filter_map(|range| range.parse().ok()).collect()
    }
}

/// The answer to `DescribeVRouters`.
#[derive(Debug, Deserialize)]
pub(super) struct Routers {
    #[serde(rename = "VRouters")]
    routers: RouterList,
}

#[derive(Debug, Deserialize)]
struct RouterList {
    #[serde(rename = "VRouter", default)]
    router: Vec<Router>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Router {
    route_table_ids: TableIds,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableIds {
    #[serde(default)]
    route_table_id: Vec<String>,
}

impl Routers {
    /// The first table of the first router, which is the VPC's own.
    pub(super) fn first_table(self) -> Option<String> {
        let router = self.routers.router.into_iter().next()?;
        router.route_table_ids.route_table_id.into_iter().next()
    }
}

/// The answer to `DescribeRouteTables`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tables {
    route_tables: TableList,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableList {
    #[serde(default)]
    route_table: Vec<Table>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Table {
    #[serde(rename = "RouteEntrys")]
    entries: EntryList,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryList {
    #[serde(default)]
    route_entry: Vec<Entry>,
}

impl Tables {
    /// The entries of the first table, if there is one.
    pub(super) fn entries(self) -> Option<Vec<Entry>> {
        Some(self.route_tables.route_table.into_iter().next()?.entries.route_entry)
    }
}

/// A route entry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// Where to.
    pub(super) destination_cidr_block: String,
    /// The instance that it leads to, or something else.
    #[serde(default)]
    pub(super) instance_id: String,
    /// Of what kind that is. Entries of old have none.
    #[serde(default)]
    pub(super) next_hop_type: String,
    /// Whether it works.
    #[serde(default)]
    pub(super) status: String,
    /// `System` or `Custom`.
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
}

impl Entry {
    /// The same in the words in which routes are kept, for the host that is `instance`.
    pub(super) fn route(&self, instance: &str) -> Option<Route> {
        let destination: IpNetwork = self.destination_cidr_block.parse().ok()?;
        let is_to_instance = self.instance_id.starts_with("i-");
        let target = match &self.instance_id {
            own if own == instance => Target::Own,
            other if is_to_instance => Target::Host(other.clone()),
            other => Target::Other(format!("{} {other}", self.next_hop_type)),
        };
        let is_flannels = is_to_instance && self.is_custom();
        // Whether an instance runs, routes do not say. The number of an entry, old versions of the API do not either: an
        // entry is told by its destination and its target.
        Some(Route { destination, target, is_dead: false, is_flannels, id: Some(self.instance_id.clone()) })
    }

    /// Whether somebody has made it: such ones count against the quota.
    pub(super) fn is_custom(&self) -> bool {
        self.kind == CUSTOM
    }

    /// Whether it is the one to `destination`, and works or not.
    pub(super) fn works(&self, destination: IpNetwork) -> Option<bool> {
        (self.destination_cidr_block.parse() == Ok(destination)).then(|| self.status == AVAILABLE)
    }
}

/// An answer of which nothing matters but that it is one.
#[derive(Debug, Deserialize)]
pub(super) struct Done {}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Done, Entry, Routers, Tables, Vpcs, decode};
    use crate::{Target, Trouble};

    #[test]
    fn from_the_vpc_to_its_routes() {
        let body = r#"{"RequestId":"r","TotalCount":1,"Vpcs":{"Vpc":[{"VpcId":"vpc-1","VRouterId":"vrt-1","CidrBlock":"192.168.0.0/16",
            "SecondaryCidrBlocks":{"SecondaryCidrBlock":["10.0.0.0/16"]},"Status":"Available"}]}}"#;
        let vpc = decode::<Vpcs>("DescribeVpcs", 200, body.as_bytes()).unwrap().first().unwrap();
        assert_eq!(vpc.router_id, "vrt-1");
        assert_eq!(vpc.ranges(), ["192.168.0.0/16".parse().unwrap(), "10.0.0.0/16".parse().unwrap()]);
        let body = r#"{"VRouters":{"VRouter":[{"VRouterId":"vrt-1","RouteTableIds":{"RouteTableId":["vtb-1","vtb-2"]}}]}}"#;
        let routers: Routers = decode("DescribeVRouters", 200, body.as_bytes()).unwrap();
        assert_eq!(routers.first_table().as_deref(), Some("vtb-1"));
        let body = r#"{"RouteTables":{"RouteTable":[{"RouteTableId":"vtb-1","RouteEntrys":{"RouteEntry":[
            {"DestinationCidrBlock":"10.5.1.0/24","InstanceId":"i-own","NextHopType":"Instance","Status":"Pending","Type":"Custom"}]}}]}}"#;
        let tables: Tables = decode("DescribeRouteTables", 200, body.as_bytes()).unwrap();
        let entries = tables.entries().unwrap();
        assert_eq!(entries[0].works("10.5.1.0/24".parse().unwrap()), Some(false));
        assert_eq!(entries[0].works("10.5.2.0/24".parse().unwrap()), None);
    }

    #[rstest]
    #[case::own("i-own", "Custom", Target::Own, true)]
    #[case::of_another("i-other", "Custom", Target::Host("i-other".to_owned()), true)]
    #[case::gateway("ngw-1", "Custom", Target::Other("NatGateway ngw-1".to_owned()), false)]
    #[case::of_the_system("", "System", Target::Other("NatGateway ".to_owned()), false)]
    fn whose_a_route_is(
        #[case] instance_id: &str,
        #[case] kind: &str,
        #[case] target: Target,
        #[case] is_flannels: bool,
    ) {
        let entry = Entry {
            destination_cidr_block: "10.5.1.0/24".to_owned(),
            instance_id: instance_id.to_owned(),
            next_hop_type: "NatGateway".to_owned(),
            status: "Available".to_owned(),
            kind: kind.to_owned(),
        };
        let route = entry.route("i-own").unwrap();
        assert_eq!((route.target, route.is_flannels), (target, is_flannels));
    }

    #[rstest]
    #[case(400, "Throttling.User", Trouble::Throttled)]
    #[case(403, "Forbidden.RAM", Trouble::Denied)]
    #[case(404, "InvalidAccessKeyId.NotFound", Trouble::Denied)]
    #[case(400, "QuotaExceeded", Trouble::Full)]
    #[case(400, "TaskConflict", Trouble::Unavailable)]
    #[case(400, "IncorrectRouteEntryStatus", Trouble::Unavailable)]
    #[case(400, "RouterEntryConflict.Duplicated", Trouble::Conflict)]
    #[case(404, "InvalidRouteEntry.NotFound", Trouble::NotFound)]
    #[case(500, "UnknownError", Trouble::Unavailable)]
    #[case(400, "InvalidCIDRBlock", Trouble::Refused)]
    fn what_an_error_means(#[case] status: u16, #[case] code: &str, #[case] trouble: Trouble) {
        let body = format!(r#"{{"RequestId":"r","HostId":"h","Code":"{code}","Message":"why"}}"#);
        let error = decode::<Done>("CreateRouteEntry", status, body.as_bytes()).unwrap_err();
        assert_eq!((error.trouble, error.message), (trouble, format!("{code}: why")));
    }

    #[rstest]
    #[case::page(502, "<html>", Trouble::Unavailable)]
    #[case::page_of_a_proxy(200, "<html>", Trouble::Garbage)]
    #[case::refused_by_a_proxy(403, "<html>", Trouble::Garbage)]
    #[case::other_answer(200, r#"{"RouteTables":7}"#, Trouble::Garbage)]
    fn what_is_no_answer(#[case] status: u16, #[case] body: &str, #[case] trouble: Trouble) {
        assert_eq!(
            decode::<Tables>("DescribeRouteTables", status, body.as_bytes()).unwrap_err().trouble,
            trouble
        );
    }
}
