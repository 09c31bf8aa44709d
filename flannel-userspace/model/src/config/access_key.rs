//! Options of the backends of clouds that are called with an access key: tencent-vpc and ali-vpc.

use super::json::{Object, TypeError};
use crate::secret::Secret;

/// What the configuration says of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessKeyConfig {
    /// The key's name and what calls are signed with; the environment or the instance's role has them if this does not.
    pub key: Option<(String, Secret)>,
    /// How many routes a route table may have, if that is known.
    pub route_limit: Option<usize>,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessKeyError {
    /// A value is of the wrong type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// So is the secret, which is not shown.
    #[error("AccessKeySecret is no string; give a string")]
    SecretType,
    /// There is no table without any route.
    #[error("RouteLimit is 0: set it to the quota of routes in a route table, or leave it out")]
    Limit,
}

impl AccessKeyConfig {
    /// Reads the options; `limit` is the quota of routes that a table has unless another one was granted.
    pub(super) fn parse(options: &Object, limit: Option<usize>) -> Result<Self, AccessKeyError> {
        let (mut id, mut secret, mut route_limit) = (String::new(), String::new(), 0u32);
        let mut is_limit_given = false;
        for option in options.members() {
            match option.name().as_str() {
                "accesskeyid" => option.set(&mut id)?,
                "accesskeysecret" => option.set(&mut secret).map_err(|_| AccessKeyError::SecretType)?,
                "routelimit" => {
                    option.set(&mut route_limit)?;
                    is_limit_given = option.json() != "null";
                }
                _ => {}
            }
        }
        if is_limit_given && route_limit == 0 {
            return Err(AccessKeyError::Limit);
        }
        let is_complete = !id.is_empty() && !secret.is_empty();
        Ok(Self {
            key: is_complete.then(|| (id, Secret::new(secret))),
            route_limit: if is_limit_given { usize::try_from(route_limit).ok() } else { limit },
        })
    }

    /// The options and their values, as people write them.
    pub(super) fn keys(&self) -> Vec<(&'static str, String)> {
        let limit = self.route_limit.map_or_else(|| "unknown".to_owned(), |limit| limit.to_string());
        let id = self.key.as_ref().map_or("none", |(id, _)| id);
        vec![("Backend.AccessKeyID", id.to_owned()), ("Backend.RouteLimit", limit)]
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::AccessKeyConfig;
    use crate::config::json::Object;
    use crate::secret::Secret;

    fn parse(options: &str) -> Result<AccessKeyConfig, String> {
        AccessKeyConfig::parse(&Object::parse(options).unwrap(), Some(200)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_read_and_not_shown() {
        let config = parse(r#"{"Type":"ali-vpc","accessKeyId":"id","AccessKeySecret":"canary"}"#).unwrap();
        assert_eq!(config.key, Some(("id".to_owned(), Secret::new("canary"))));
        assert!(!format!("{config:?} {:?}", config.keys()).contains("canary"), "{config:?}");
    }

    #[rstest]
    #[case::none("{}")]
    #[case::null(r#"{"AccessKeyID":null,"AccessKeySecret":null}"#)]
    #[case::half(r#"{"AccessKeyID":"id"}"#)]
    #[case::other_half(r#"{"AccessKeySecret":"canary"}"#)]
    fn without_a_whole_key_the_environment_has_it(#[case] options: &str) {
        assert_eq!(parse(options), Ok(AccessKeyConfig { key: None, route_limit: Some(200) }));
    }

    #[rstest]
    #[case(r#"{"RouteLimit":50}"#, Some(50))]
    #[case(r#"{"RouteLimit":null}"#, Some(200))]
    fn limit_of_routes(#[case] options: &str, #[case] limit: Option<usize>) {
        assert_eq!(parse(options).unwrap().route_limit, limit);
    }

    #[rstest]
    #[case(r#"{"AccessKeySecret":4711}"#, "AccessKeySecret is no string")]
    #[case(r#"{"AccessKeyID":7}"#, "AccessKeyID is 7; give ")]
    #[case(r#"{"RouteLimit":0}"#, "RouteLimit is 0")]
    fn what_is_refused(#[case] options: &str, #[case] reason: &str) {
        let error = parse(options).unwrap_err();
        assert!(error.contains(reason) && !error.contains("4711"), "{error}");
    }
}
