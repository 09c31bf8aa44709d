//! Calls of Alibaba Cloud's API.

use bytes::Bytes;
use flannel_control::chance;
use flannel_model::config::access_key::AccessKeyConfig;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::answers::decode;
use super::signature::Call;
use crate::CloudError;
use crate::access_key::{AccessKey, AccessKeys};
use crate::http::{Http, Request};
use crate::instance_metadata::InstanceMetadata;
use crate::signed_api::{SignedApi, finish, locate, variable};

/// Another metadata server than the cloud's, by host and port.
const METADATA_HOST: &str = "ALI_METADATA_HOST";
/// The URL of another endpoint, of the API of ECS, as stock flannel has it.
const ENDPOINT: &str = "ECS_ENDPOINT";
/// The version of the API of VPCs, and that of ECS, which has the same actions.
const VERSION: &str = "2016-04-28";
const ECS_VERSION: &str = "2014-05-26";

/// The API, and the metadata of this instance.
pub(super) struct Api {
    /// The endpoint, if it is not the region's own.
    endpoint: Option<String>,
    api: SignedApi,
}

impl Api {
    /// As the configuration and the environment say.
    pub(super) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        let host = variable(METADATA_HOST).unwrap_or_else(|| "100.100.100.200".to_owned());
        let metadata = InstanceMetadata::new(host, "ali-vpc", http.clone());
        let keys = AccessKeys::new(config, "ram/security-credentials/");
        Self { endpoint: variable(ENDPOINT), api: SignedApi::new(keys, http, metadata) }
    }

    /// The metadata of this instance.
    pub(super) const fn metadata(&self) -> &InstanceMetadata {
        &self.api.metadata
    }

    /// Has the cloud do `action` in `region`.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        action: &'static str,
        region: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, CloudError> {
        let (endpoint, version) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), ECS_VERSION),
            None => (format!("https://vpc.{region}.aliyuncs.com"), VERSION),
        };
        let mut parameters = parameters.to_vec();
        parameters.push(("RegionId", region));
        let sign = |key: &AccessKey| request(&endpoint, version, action, &parameters, key);
        self.api.call(action, sign, decode).await
    }
}

fn request(
    endpoint: &str,
    version: &str,
    action: &'static str,
    parameters: &[(&str, &str)],
    key: &AccessKey,
) -> Result<Request<Bytes>, CloudError> {
    let (_, host) = locate(action, endpoint)?;
    let nonce = format!("{:016x}{:016x}", chance::number(), chance::number());
    let call = Call {
        host: &host,
        action,
        version,
        parameters,
        time: Timestamp::now(),
        nonce: &nonce,
        security_token: key.token.as_ref().map(flannel_model::secret::Secret::expose),
    };
    let url = format!("{}/?{}", endpoint.trim_end_matches('/'), call.query());
    let mut request = Request::post(url).header("content-length", 0);
    for (name, value) in call.headers(&key.id, key.secret.expose()) {
        request = request.header(name, value);
    }
    finish(action, request, Bytes::new())
}
