//! Access keys: of an account, as the configuration or the environment has them, or of the instance's role.

use std::env;
use std::time::Duration;

use flannel_model::config::access_key::AccessKeyConfig;
use flannel_model::secret::Secret;
use jiff::Timestamp;
use serde::Deserialize;

use crate::instance_metadata::InstanceMetadata;
use crate::{CloudError, Trouble};

/// A key of a role is replaced so long before its end.
const MARGIN: Duration = Duration::from_secs(300);

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessKey {
    /// Its name.
    pub(crate) id: String,
    /// What calls are signed with.
    pub(crate) secret: Secret,
    /// What belongs to it if it is of a role.
    pub(crate) token: Option<Secret>,
}

/// Where keys come from, and the last one of a role.
pub(crate) struct AccessKeys {
    configured: Option<AccessKey>,
    /// The metadata's folder of roles.
    roles: &'static str,
    current: Option<(AccessKey, Timestamp)>,
}

impl AccessKeys {
    /// The key of the configuration, else that of the environment, else that of the role which is found in the metadata at
    /// `roles`.
    pub(crate) fn new(config: &AccessKeyConfig, roles: &'static str) -> Self {
        let variable = |name: &str| env::var(name).unwrap_or_default();
        let of_config = config.key.clone();
        let of_environment = || AccessKey::of(&variable("ACCESS_KEY_ID"), variable("ACCESS_KEY_SECRET"));
        let configured =
            of_config.map(|(id, secret)| AccessKey { id, secret, token: None }).or_else(of_environment);
        Self { configured, roles, current: None }
    }

    /// A key that is good for a while.
    pub(crate) async fn key(&mut self, metadata: &InstanceMetadata) -> Result<AccessKey, CloudError> {
        if let Some(key) = &self.configured {
            return Ok(key.clone());
        }
        if let Some((key, end)) = &self.current
            && Timestamp::now() + MARGIN < *end
        {
            return Ok(key.clone());
        }
        let (key, end) = self.key_of_role(metadata).await?;
        self.current = Some((key.clone(), end));
        Ok(key)
    }

    async fn key_of_role(&self, metadata: &InstanceMetadata) -> Result<(AccessKey, Timestamp), CloudError> {
        let roles = metadata.find(self.roles).await?.unwrap_or_default();
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty()).ok_or_else(|| {
            let message = "ACCESS_KEY_ID and ACCESS_KEY_SECRET must be provided! Set them in the environment, or \
                           AccessKeyID and AccessKeySecret in the configuration, or give this instance a role";
            CloudError::new(Trouble::Denied, "credentials", message)
        })?;
        let answer = metadata.get(&format!("{}{role}", self.roles)).await?;
        RoleKey::parse(&answer).ok_or_else(|| {
            // It could show a part of a key.
            CloudError::garbage("credentials", format!("what the metadata say of the role {role} is no key"))
        })
    }

    /// The key of the role is not taken any more.
    pub(crate) fn forget(&mut self) {
        self.current = None;
    }
}

impl AccessKey {
    fn of(id: &str, secret: String) -> Option<Self> {
        let is_given = !id.is_empty() && !secret.is_empty();
        is_given.then(|| Self { id: id.to_owned(), secret: Secret::new(secret), token: None })
    }
}

/// The key of a role in the words of either cloud.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKey {
    #[serde(alias = "TmpSecretId")]
    access_key_id: String,
    #[serde(alias = "TmpSecretKey")]
    access_key_secret: String,
    #[serde(alias = "Token")]
    security_token: String,
    expiration: String,
}

impl RoleKey {
    fn parse(text: &str) -> Option<(AccessKey, Timestamp)> {
        let key: Self = serde_json::from_str(text).ok()?;
        let token = Some(Secret::new(key.security_token));
        let secret = Secret::new(key.access_key_secret);
        let end = key.expiration.parse().ok()?;
        Some((AccessKey { id: key.access_key_id, secret, token }, end))
    }
}

#[cfg(test)]
mod tests {
    use flannel_model::secret::Secret;
    use rstest::rstest;

    use super::{AccessKey, RoleKey};

    #[rstest]
    #[case::tencent(
        r#"{"TmpSecretId":"id","TmpSecretKey":"canary","ExpiredTime":1615590047,"Expiration":"2021-03-12T23:00:47Z",
        "Token":"token","Code":"Success"}"#
    )]
    #[case::ali(
        r#"{"AccessKeyId":"id","AccessKeySecret":"canary","Expiration":"2021-03-12T23:00:47Z","SecurityToken":"token",
        "LastUpdated":"2021-03-12T17:00:47Z","Code":"Success"}"#
    )]
    fn key_of_a_role(#[case] text: &str) {
        let (key, end) = RoleKey::parse(text).unwrap();
        let expected = AccessKey {
            id: "id".to_owned(),
            secret: Secret::new("canary"),
            token: Some(Secret::new("token")),
        };
        assert_eq!((key.clone(), end), (expected, "2021-03-12T23:00:47Z".parse().unwrap()));
        assert!(!format!("{key:?}").contains("canary"), "{key:?}");
    }

    #[rstest]
    #[case::page("<html>")]
    #[case::refused(r#"{"Code":"Failed"}"#)]
    #[case::no_end(r#"{"AccessKeyId":"id","AccessKeySecret":"s","SecurityToken":"t","Expiration":"soon"}"#)]
    fn what_is_no_key(#[case] text: &str) {
        assert_eq!(RoleKey::parse(text), None);
    }

    #[test]
    fn half_a_key_is_none() {
        assert_eq!(AccessKey::of("id", String::new()), None);
        assert_eq!(AccessKey::of("", "secret".to_owned()), None);
    }
}
