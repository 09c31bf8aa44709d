//! Calls of Alibaba Cloud's API.

use std::env;
use std::time::Duration;

use bytes::Bytes;
use flannel_control::chance;
use flannel_model::config::access_key::AccessKeyConfig;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::answers::decode;
use super::signature::Call;
use crate::access_key::{AccessKey, AccessKeys};
use crate::http::{Http, Request};
use crate::instance_metadata::InstanceMetadata;
use crate::{CloudError, Trouble};

/// Another metadata server than the cloud's, by host and port.
const METADATA_HOST: &str = "ALI_METADATA_HOST";
/// The URL of another endpoint, of the API of ECS, as stock flannel has it.
const ENDPOINT: &str = "ECS_ENDPOINT";
/// The version of the API of VPCs, and that of ECS, which has the same actions.
const VERSION: &str = "2016-04-28";
const ECS_VERSION: &str = "2014-05-26";
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API, and the metadata of this instance.
pub(super) struct Api {
    /// The endpoint, if it is not the region's own.
    endpoint: Option<String>,
    keys: AccessKeys,
    http: Http,
    pub(super) metadata: InstanceMetadata,
}

impl Api {
    /// As the configuration and the environment say.
    pub(super) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable(METADATA_HOST).unwrap_or_else(|| "100.100.100.200".to_owned());
        Self {
            endpoint: variable(ENDPOINT),
            keys: AccessKeys::new(config, "ram/security-credentials/"),
            metadata: InstanceMetadata::new(host, "ali-vpc", http.clone()),
            http,
        }
    }

    /// Has the cloud do `action` in `region`.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        action: &'static str,
        region: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, CloudError> {
        let key = self.keys.key(&self.metadata).await.map_err(|error| self.http.fail(error))?;
        let request = self.request(action, region, parameters, &key)?;
        let answer = self.http.send(action, request, PATIENCE).await?;
        decode(action, answer.status().as_u16(), answer.body()).map_err(|error| {
            if error.is(Trouble::Denied) {
                self.keys.forget();
            }
            self.http.fail(error)
        })
    }

    fn request(
        &self,
        action: &'static str,
        region: &str,
        parameters: &[(&str, &str)],
        key: &AccessKey,
    ) -> Result<Request<Bytes>, CloudError> {
        let (endpoint, version) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), ECS_VERSION),
            None => (format!("https://vpc.{region}.aliyuncs.com"), VERSION),
        };
        let unusable = |why: String| CloudError::new(Trouble::Refused, action, format!("{endpoint}: {why}"));
        let uri: ::http::Uri = endpoint.parse().map_err(|error| unusable(format!("is no URL: {error}")))?;
        let host = uri.authority().ok_or_else(|| unusable("names no host".to_owned()))?.to_string();
        let mut parameters = parameters.to_vec();
        parameters.push(("RegionId", region));
        let nonce = format!("{:016x}{:016x}", chance::number(), chance::number());
        let call = Call {
            host: &host,
            action,
            version,
            parameters: &parameters,
            time: Timestamp::now(),
            nonce: &nonce,
            security_token: key.token.as_ref().map(flannel_model::secret::Secret::expose),
        };
        let url = format!("{}/?{}", endpoint.trim_end_matches('/'), call.query());
        let mut request = Request::post(url).header("content-length", 0);
        for (name, value) in call.headers(&key.id, key.secret.expose()) {
            request = request.header(name, value);
        }
        // A value that fits in no header may be secret.
        request.body(Bytes::new()).map_err(|_| {
            CloudError::new(Trouble::Denied, action, "the access key has characters that no access key has")
        })
    }
}
