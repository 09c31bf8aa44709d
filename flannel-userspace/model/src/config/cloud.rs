//! What the network's configuration says of a cloud whose route tables carry the packets. Each cloud is a variant of
//! [`CloudConfig`] and a line in its functions.

use std::fmt;

use super::access_key::{AccessKeyConfig, AccessKeyError};
use super::gce::{GceConfig, GceError};
use super::json::{Member, Object, TypeError, excerpt};
use crate::cloud::Provider;

/// A cloud and the options of its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudConfig {
    /// Amazon's Virtual Private Cloud.
    AwsVpc(AwsVpcConfig),
    /// Google Compute Engine.
    Gce(GceConfig),
    /// Tencent Cloud.
    TencentVpc(AccessKeyConfig),
    /// Alibaba Cloud.
    AliVpc(AccessKeyConfig),
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudOptionError {
    /// A value is of the wrong type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// One of gce.
    #[error(transparent)]
    Gce(#[from] GceError),
    /// One of tencent-vpc or ali-vpc.
    #[error(transparent)]
    AccessKey(#[from] AccessKeyError),
    /// `RouteTableID` is neither a string nor a list.
    #[error("Unexpected RouteTableID type. Must be string or array of strings.")]
    TablesType,
    /// `RouteTableID` lists something else than strings.
    #[error("Unexpected type in RouteTableID slice. Must be strings.")]
    TableType,
    /// The name of no route table.
    #[error(
        "RouteTableID is {0}: give the ID of a route table, such as \"rtb-0123456789abcdef0\", a list of them, or leave it out"
    )]
    Table(String),
    /// `RouteTableFilter` is no list of strings.
    #[error("RouteTableFilter must be a list of strings such as \"tag:KubernetesCluster=prod\"")]
    FilterType,
    /// A filter that is none.
    #[error("RouteTableFilter has {0}: write \"tag:KEY=VALUE\"")]
    Filter(String),
    /// Two ways to choose route tables.
    #[error("RouteTableID and RouteTableFilter are both given: leave one of them out")]
    TwoChoices,
    /// There is no table without any route.
    #[error("RouteLimit is 0: set it to the quota of routes in a route table, such as 500, or leave it out")]
    Limit,
}

impl CloudConfig {
    /// Reads the options of the backend and fills in the defaults.
    pub(super) fn parse(provider: Provider, options: &Object) -> Result<Self, CloudOptionError> {
        match provider {
            Provider::AwsVpc => AwsVpcConfig::parse(options).map(Self::AwsVpc),
            Provider::Gce => Ok(Self::Gce(GceConfig::parse(options)?)),
            Provider::TencentVpc => Ok(Self::TencentVpc(AccessKeyConfig::parse(options, None)?)),
            Provider::AliVpc => Ok(Self::AliVpc(AccessKeyConfig::parse(options, Some(ALI_ROUTE_LIMIT))?)),
        }
    }

    /// Which cloud.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::AwsVpc(_) => Provider::AwsVpc,
            Self::Gce(_) => Provider::Gce,
            Self::TencentVpc(_) => Provider::TencentVpc,
            Self::AliVpc(_) => Provider::AliVpc,
        }
    }

    /// The options and their values, as people write them. Secrets are not among them.
    pub(super) fn keys(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::AwsVpc(config) => {
                let limit = config.route_limit.to_string();
                vec![("Backend.RouteTableID", config.tables.to_string()), ("Backend.RouteLimit", limit)]
            }
            Self::Gce(config) => config.keys(),
            Self::TencentVpc(config) | Self::AliVpc(config) => config.keys(),
        }
    }
}

/// The quota of entries in a route table of Alibaba's, unless it has granted another one.
const ALI_ROUTE_LIMIT: usize = 200;

/// Options of the aws-vpc backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsVpcConfig {
    /// The route tables that get a route to each host.
    pub tables: RouteTables,
    /// How many routes a table may have: the quota "Routes per route table", which this cannot ask for.
    pub route_limit: u32,
}

/// Which route tables of a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTables {
    /// The one of this host's subnet in the VPC.
    Detected,
    /// These.
    Named(Vec<String>),
    /// Those of the VPC that have all these tags.
    Tagged(Vec<TagFilter>),
}

/// A tag and its value; in both, `*` stands for any text and `?` for any letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFilter {
    /// The tag's key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The quota of routes in a route table, unless Amazon has granted another one.
const ROUTE_LIMIT: u32 = 500;

impl AwsVpcConfig {
    fn parse(options: &Object) -> Result<Self, CloudOptionError> {
        let (mut ids, mut filters, mut route_limit) = (Vec::new(), Vec::new(), ROUTE_LIMIT);
        for option in options.members() {
            match option.name().as_str() {
                "routetableid" => ids = tables(option)?,
                "routetablefilter" => filters = tag_filters(option)?,
                "routelimit" => option.set(&mut route_limit)?,
                _ => {}
            }
        }
        if route_limit == 0 {
            return Err(CloudOptionError::Limit);
        }
        let tables = match (ids.is_empty(), filters.is_empty()) {
            (true, true) => RouteTables::Detected,
            (false, true) => RouteTables::Named(ids),
            (true, false) => RouteTables::Tagged(filters),
            (false, false) => return Err(CloudOptionError::TwoChoices),
        };
        Ok(Self { tables, route_limit })
    }
}

/// The tables named: none for `null` and for `""`, which the first versions of stock flannel took for no table, too.
fn tables(option: &Member) -> Result<Vec<String>, CloudOptionError> {
    let mut ids: Vec<String> = match serde_json::from_str(option.json()) {
        Ok(serde_json::Value::Null) => Vec::new(),
        Ok(serde_json::Value::String(id)) if id.is_empty() => Vec::new(),
        Ok(serde_json::Value::String(id)) => vec![id],
        Ok(serde_json::Value::Array(_)) => {
            serde_json::from_str(option.json()).map_err(|_| CloudOptionError::TableType)?
        }
        _ => return Err(CloudOptionError::TablesType),
    };
    if let Some(odd) = ids.iter().find(|id| !is_table(id)) {
        return Err(CloudOptionError::Table(excerpt(odd)));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn is_table(id: &str) -> bool {
    let rest = id.strip_prefix("rtb-");
    rest.is_some_and(|rest| {
        (8..=32).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn tag_filters(option: &Member) -> Result<Vec<TagFilter>, CloudOptionError> {
    let written: Option<Vec<String>> =
        serde_json::from_str(option.json()).map_err(|_| CloudOptionError::FilterType)?;
    written.unwrap_or_default().iter().map(|text| tag_filter(text)).collect()
}

fn tag_filter(text: &str) -> Result<TagFilter, CloudOptionError> {
    let parts = text.strip_prefix("tag:").and_then(|rest| rest.split_once('='));
    match parts {
        Some((key, value)) if !key.is_empty() => {
            Ok(TagFilter { key: key.to_owned(), value: value.to_owned() })
        }
        _ => Err(CloudOptionError::Filter(excerpt(text))),
    }
}

impl fmt::Display for RouteTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detected => f.write_str("the subnet's"),
            Self::Named(ids) => f.write_str(&ids.join(" ")),
            Self::Tagged(filters) => {
                let filters = filters.iter().map(|TagFilter { key, value }| format!("tag:{key}={value}"));
                f.write_str(&filters.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{AwsVpcConfig, RouteTables};
    use crate::config::json::Object;

    const TABLE: &str = "rtb-0123456789abcdef0";

    fn parse(options: &str) -> Result<AwsVpcConfig, String> {
        AwsVpcConfig::parse(&Object::parse(options).unwrap()).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case::absent("{}", "the subnet's")]
    #[case::null(r#"{"RouteTableID":null}"#, "the subnet's")]
    #[case::empty(r#"{"RouteTableID":""}"#, "the subnet's")]
    #[case::empty_list(r#"{"RouteTableID":[]}"#, "the subnet's")]
    #[case::old_id(r#"{"routetableid":"rtb-1a2b3c4d"}"#, "rtb-1a2b3c4d")]
    #[case::list(
        r#"{"RouteTableID":["rtb-1a2b3c4e","rtb-1a2b3c4d","rtb-1a2b3c4d"]}"#,
        "rtb-1a2b3c4d rtb-1a2b3c4e"
    )]
    #[case::filter(r#"{"RouteTableFilter":["tag:a=b=c","tag:x=*"]}"#, "tag:a=b=c tag:x=*")]
    #[case::no_filter(r#"{"RouteTableFilter":[]}"#, "the subnet's")]
    fn tables_are_chosen(#[case] options: &str, #[case] chosen: &str) {
        assert_eq!(parse(options).unwrap().tables.to_string(), chosen);
    }

    #[rstest]
    #[case::number(
        r#"{"RouteTableID":7}"#,
        "Unexpected RouteTableID type. Must be string or array of strings."
    )]
    #[case::numbers(r#"{"RouteTableID":[7]}"#, "Unexpected type in RouteTableID slice. Must be strings.")]
    #[case::other_id(r#"{"RouteTableID":"subnet-1a2b3c4d"}"#, "RouteTableID is subnet-1a2b3c4d")]
    #[case::injected(r#"{"RouteTableID":"rtb-1a2b3c4d&Action=DeleteVpc"}"#, "RouteTableID is rtb-")]
    #[case::filter_type(r#"{"RouteTableFilter":"tag:a=b"}"#, "RouteTableFilter must be a list")]
    #[case::filter(r#"{"RouteTableFilter":["vpc-id=x"]}"#, "write \"tag:KEY=VALUE\"")]
    #[case::both(
        r#"{"RouteTableID":"rtb-1a2b3c4d","RouteTableFilter":["tag:a=b"]}"#,
        "leave one of them out"
    )]
    #[case::limit(r#"{"RouteLimit":0}"#, "RouteLimit is 0")]
    #[case::limit_type(r#"{"RouteLimit":"many"}"#, "whole number")]
    fn what_is_refused(#[case] options: &str, #[case] reason: &str) {
        let error = parse(options).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn limit_is_the_quota_by_default() {
        assert_eq!(parse("{}").unwrap(), AwsVpcConfig { tables: RouteTables::Detected, route_limit: 500 });
        let options = format!(r#"{{"RouteTableID":"{TABLE}","RouteLimit":1000}}"#);
        assert_eq!(parse(&options).unwrap().route_limit, 1000);
    }
}
