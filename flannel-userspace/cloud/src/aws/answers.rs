//! The Query API's language: forms are asked, XML is answered.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::CloudError;

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A form of these fields.
pub(super) fn form<K: AsRef<str>, V: AsRef<str>>(fields: &[(K, V)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let field = |(key, value): &(K, V)| format!("{}={}", encoded(key.as_ref()), encoded(value.as_ref()));
    fields.iter().map(field).collect::<Vec<_>>().join("&")
}

/// An answer in XML.
pub(super) fn read<T: DeserializeOwned>(action: &'static str, body: &[u8]) -> Result<T, CloudError> {
    let text = std::str::from_utf8(body).map_err(|_| CloudError::garbage(action, "it is no text"))?;
    quick_xml::de::from_str(text).map_err(|error| {
        let error: String =
            error.to_string().chars().filter(|letter| !letter.is_control()).take(200).collect();
        CloudError::garbage(action, error)
    })
}

/// A list in an answer of EC2.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Items<T> {
    #[serde(rename = "item", default = "Vec::new")]
    pub(super) items: Vec<T>,
}

/// The answer to `DescribeRouteTables`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteTablesAnswer {
    pub(super) route_table_set: Items<RouteTable>,
    #[serde(default)]
    pub(super) next_token: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteTable {
    pub(super) route_table_id: String,
    pub(super) vpc_id: String,
    pub(super) route_set: Items<RouteItem>,
    #[serde(default)]
    pub(super) association_set: Option<Items<Association>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Association {
    #[serde(default)]
    pub(super) subnet_id: Option<String>,
    #[serde(default)]
    pub(super) main: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct RouteItem {
    pub(super) destination_cidr_block: Option<String>,
    pub(super) destination_ipv6_cidr_block: Option<String>,
    pub(super) network_interface_id: Option<String>,
    pub(super) instance_id: Option<String>,
    pub(super) gateway_id: Option<String>,
    pub(super) nat_gateway_id: Option<String>,
    pub(super) transit_gateway_id: Option<String>,
    pub(super) vpc_peering_connection_id: Option<String>,
    pub(super) egress_only_internet_gateway_id: Option<String>,
    pub(super) local_gateway_id: Option<String>,
    pub(super) carrier_gateway_id: Option<String>,
    pub(super) core_network_arn: Option<String>,
    pub(super) state: Option<String>,
    pub(super) origin: Option<String>,
}

/// The answer to `DescribeNetworkInterfaces`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InterfacesAnswer {
    pub(super) network_interface_set: Items<InterfaceItem>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InterfaceItem {
    pub(super) source_dest_check: bool,
}

/// The answer to what changes something.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Done {
    #[serde(rename = "return")]
    pub(super) is_done: bool,
}

/// The answer of STS.
#[derive(Deserialize)]
pub(super) struct AssumedRole {
    #[serde(rename = "AssumeRoleWithWebIdentityResult")]
    pub(super) result: AssumedRoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AssumedRoleResult {
    pub(super) credentials: AssumedKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AssumedKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
    pub(super) expiration: String,
}

/// A refusal; STS has one error where EC2 has a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) errors: Option<Errors>,
    #[serde(default)]
    pub(super) error: Option<ErrorItem>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Errors {
    #[serde(default)]
    pub(super) error: Vec<ErrorItem>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ErrorItem {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

#[cfg(test)]
mod tests {
    use super::{Done, RouteTablesAnswer, form, read};

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a.1", "x y&z=*~é"), ("b", "")]), "a.1=x%20y%26z%3D%2A~%C3%A9&b=");
    }

    #[test]
    fn tables_are_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeRouteTablesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>6f570b0b</requestId>
  <routeTableSet>
    <item>
      <routeTableId>rtb-1</routeTableId><vpcId>vpc-1</vpcId><ownerId>1</ownerId>
      <routeSet>
        <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId>
          <state>active</state><origin>CreateRouteTable</origin></item>
        <item><destinationCidrBlock>10.5.1.0/24</destinationCidrBlock><networkInterfaceId>eni-1</networkInterfaceId>
          <state>blackhole</state><origin>CreateRoute</origin></item>
      </routeSet>
      <associationSet><item><routeTableAssociationId>a</routeTableAssociationId><main>true</main></item></associationSet>
      <propagatingVgwSet/><tagSet/>
    </item>
    <item><routeTableId>rtb-2</routeTableId><vpcId>vpc-1</vpcId><routeSet/></item>
  </routeTableSet>
  <nextToken>more</nextToken>
</DescribeRouteTablesResponse>"#;
        let answer: RouteTablesAnswer = read("test", text.as_bytes()).unwrap();
        let tables = &answer.route_table_set.items;
        assert_eq!((tables.len(), tables[0].route_set.items.len()), (2, 2));
        assert_eq!(tables[0].route_set.items[1].state.as_deref(), Some("blackhole"));
        assert!(tables[0].association_set.as_ref().unwrap().items[0].main);
        assert_eq!(answer.next_token.as_deref(), Some("more"));
        let empty: RouteTablesAnswer = read("test", b"<R><routeTableSet/></R>").unwrap();
        assert!(empty.route_table_set.items.is_empty());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for garbage in [
            "",
            "<",
            "<html><body>captive portal</body></html>",
            "{}",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><R>&a;</R>",
        ] {
            assert!(read::<RouteTablesAnswer>("test", garbage.as_bytes()).is_err(), "{garbage}");
            assert!(read::<Done>("test", garbage.as_bytes()).is_err(), "{garbage}");
        }
        assert!(read::<RouteTablesAnswer>("test", &[0xff, 0xfe]).is_err());
        assert!(
            read::<Done>("test", b"<CreateRouteResponse><return>true</return></CreateRouteResponse>")
                .unwrap()
                .is_done
        );
    }
}
