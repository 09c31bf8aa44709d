//! What Tencent Cloud answers, as far as it matters here. <https://www.tencentcloud.com/document/api/215>

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{CloudError, Route, Target, Trouble};

/// What routes of flannel lead to: an instance, by its address.
pub(super) const INSTANCE: &str = "NORMAL_CVM";

/// Who writes such routes.
const USER: &str = "USER";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    response: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    error: Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Error {
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
    let Ok(Envelope { response }) = serde_json::from_slice(body) else {
        return Err(CloudError::of_no_api(action, status));
    };
    if let Ok(Failure { error }) = Failure::deserialize(&response) {
        return Err(CloudError::new(
            trouble(&error.code),
            action,
            format!("{}: {}", error.code, error.message),
        ));
    }
    T::deserialize(&response).map_err(|error| CloudError::garbage(action, error))
}

/// What a code of an error means. A code may have a second part, which says more.
fn trouble(code: &str) -> Trouble {
    match code.split('.').next().unwrap_or(code) {
        "RequestLimitExceeded" => Trouble::Throttled,
        "AuthFailure" | "UnauthorizedOperation" => Trouble::Denied,
        "LimitExceeded" => Trouble::Full,
        "ResourceNotFound" => Trouble::NotFound,
        "ResourceInUse" => Trouble::Conflict,
        "InternalError" | "ResourceUnavailable" | "FailedOperation" | "ServiceUnavailable" => {
            Trouble::Unavailable
        }
        _ if code == "InvalidParameterValue.Duplicate" => Trouble::Conflict,
        _ => Trouble::Refused,
    }
}

/// The answer to `DescribeRouteTables`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tables {
    /// The tables.
    #[serde(default)]
    pub(super) route_table_set: Vec<Table>,
}

/// A route table.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Table {
    /// Its number.
    pub(super) route_table_id: String,
    /// Its routes.
    #[serde(default)]
    pub(super) route_set: Vec<Entry>,
}

/// A route.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// Where to; empty where the route is of IPv6.
    #[serde(default)]
    pub(super) destination_cidr_block: String,
    /// What kind of thing it leads to.
    #[serde(default)]
    pub(super) gateway_type: String,
    /// Which: with [`INSTANCE`], its address.
    #[serde(default)]
    pub(super) gateway_id: String,
    /// Its number.
    pub(super) route_id: u64,
    /// Who wrote it.
    #[serde(default)]
    pub(super) route_type: String,
    /// Whether it counts.
    #[serde(default)]
    pub(super) enabled: bool,
}

impl Entry {
    /// The same in the words in which routes are kept, for the host with `address`. One that is disabled leads nowhere.
    pub(super) fn route(&self, address: &str) -> Option<Route> {
        let destination: IpNetwork = self.destination_cidr_block.parse().ok()?;
        let is_to_instance = self.gateway_type == INSTANCE;
        let target = match &self.gateway_id {
            own if is_to_instance && self.enabled && own == address => Target::Own,
            other if is_to_instance => Target::Host(other.clone()),
            other => Target::Other(format!("{} {other}", self.gateway_type)),
        };
        let is_flannels = is_to_instance && self.route_type == USER;
        // Whether an instance runs, routes do not say.
        Some(Route { destination, target, is_dead: false, is_flannels, id: Some(self.route_id.to_string()) })
    }
}

/// The answer to `DescribeVpcs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Vpcs {
    #[serde(default)]
    vpc_set: Vec<Vpc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Vpc {
    cidr_block: String,
    #[serde(default)]
    assistant_cidr_set: Vec<Assistant>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assistant {
    cidr_block: String,
    /// Zero: a range of subnets; else one of containers, which is there for networks such as flannel's.
    #[serde(default)]
    assistant_type: u32,
}

impl Vpcs {
    /// The ranges of which hosts have addresses.
    pub(super) fn ranges(&self) -> Vec<IpNetwork> {
        let ranges = self.vpc_set.iter().flat_map(|vpc| {
            let assistants = vpc.assistant_cidr_set.iter().filter(|assistant| assistant.assistant_type == 0);
            std::iter::once(&vpc.cidr_block).chain(assistants.map(|assistant| &assistant.cidr_block))
        });
        ranges.filter_map(|range| range.parse().ok()).collect()
    }
}

/// An answer of which nothing matters but that it is one.
#[derive(Debug, Deserialize)]
pub(super) struct Done {}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Done, Entry, Tables, Vpcs, decode};
    use crate::{Target, Trouble};

    const TABLES: &str = r#"{"Response":{"TotalCount":1,"RouteTableSet":[{"VpcId":"vpc-1","RouteTableId":"rtb-1",
        "RouteTableName":"default","AssociationSet":[],"Main":true,"RouteSet":[
        {"DestinationCidrBlock":"10.5.1.0/24","GatewayType":"NORMAL_CVM","GatewayId":"10.0.0.5","RouteId":7,
         "RouteItemId":"rti-7","RouteDescription":"","Enabled":true,"RouteType":"USER"},
        {"DestinationCidrBlock":"","DestinationIpv6CidrBlock":"fd00::/64","GatewayType":"NAT","GatewayId":"nat-1",
         "RouteId":0,"Enabled":true,"RouteType":"USER"}]}],"RequestId":"r"}}"#;

    #[test]
    fn tables_and_their_routes() {
        let tables: Tables = decode("DescribeRouteTables", 200, TABLES.as_bytes()).unwrap();
        let [table] = &tables.route_table_set[..] else { panic!("one table") };
        let routes: Vec<_> = table.route_set.iter().filter_map(|entry| entry.route("10.0.0.5")).collect();
        assert_eq!((table.route_table_id.as_str(), routes.len()), ("rtb-1", 1));
        assert_eq!((&routes[0].target, routes[0].id.as_deref()), (&Target::Own, Some("7")));
    }

    #[rstest]
    #[case::own("NORMAL_CVM", "10.0.0.5", "USER", true, Target::Own, true)]
    #[case::disabled("NORMAL_CVM", "10.0.0.5", "USER", false, Target::Host("10.0.0.5".to_owned()), true)]
    #[case::of_another("NORMAL_CVM", "10.0.0.6", "USER", true, Target::Host("10.0.0.6".to_owned()), true)]
    #[case::of_the_network("NORMAL_CVM", "10.0.0.5", "NETD", true, Target::Own, false)]
    #[case::gateway("NAT", "nat-1", "USER", true, Target::Other("NAT nat-1".to_owned()), false)]
    fn whose_a_route_is(
        #[case] gateway_type: &str,
        #[case] gateway_id: &str,
        #[case] route_type: &str,
        #[case] enabled: bool,
        #[case] target: Target,
        #[case] is_flannels: bool,
    ) {
        let entry = Entry {
            destination_cidr_block: "10.5.1.0/24".to_owned(),
            gateway_type: gateway_type.to_owned(),
            gateway_id: gateway_id.to_owned(),
            route_id: 7,
            route_type: route_type.to_owned(),
            enabled,
        };
        let route = entry.route("10.0.0.5").unwrap();
        assert_eq!((route.target, route.is_flannels), (target, is_flannels));
    }

    #[rstest]
    #[case("RequestLimitExceeded", Trouble::Throttled)]
    #[case("RequestLimitExceeded.UinLimitExceeded", Trouble::Throttled)]
    #[case("AuthFailure.SignatureExpire", Trouble::Denied)]
    #[case("UnauthorizedOperation", Trouble::Denied)]
    #[case("LimitExceeded", Trouble::Full)]
    #[case("ResourceNotFound", Trouble::NotFound)]
    #[case("InvalidParameterValue.Duplicate", Trouble::Conflict)]
    #[case("InternalError", Trouble::Unavailable)]
    #[case("InvalidParameterValue.CidrNotInPeerVpc", Trouble::Refused)]
    fn what_an_error_means(#[case] code: &str, #[case] trouble: Trouble) {
        let body =
            format!(r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"why"}},"RequestId":"r"}}}}"#);
        // Errors have the status of success.
        let error = decode::<Done>("CreateRoutes", 200, body.as_bytes()).unwrap_err();
        assert_eq!((error.trouble, error.message), (trouble, format!("{code}: why")));
    }

    #[rstest]
    #[case::page(502, "<html>", Trouble::Unavailable)]
    #[case::page_of_a_proxy(200, "<html>", Trouble::Garbage)]
    #[case::other_json(200, "[]", Trouble::Garbage)]
    #[case::other_answer(200, r#"{"Response":{"RouteTableSet":7}}"#, Trouble::Garbage)]
    fn what_is_no_answer(#[case] status: u16, #[case] body: &str, #[case] trouble: Trouble) {
        assert_eq!(
            decode::<Tables>("DescribeRouteTables", status, body.as_bytes()).unwrap_err().trouble,
            trouble
        );
    }

    #[test]
    fn ranges_of_containers_are_for_pods() {
        let body = r#"{"Response":{"VpcSet":[{"VpcId":"vpc-1","CidrBlock":"10.0.0.0/16","AssistantCidrSet":[
            {"VpcId":"vpc-1","CidrBlock":"10.1.0.0/16","AssistantType":0},
            {"VpcId":"vpc-1","CidrBlock":"10.5.0.0/16","AssistantType":1}]}],"RequestId":"r"}}"#;
        let vpcs: Vpcs = decode("DescribeVpcs", 200, body.as_bytes()).unwrap();
        assert_eq!(vpcs.ranges(), ["10.0.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]);
    }
}
