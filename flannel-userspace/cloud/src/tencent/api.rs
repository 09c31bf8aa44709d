//! Calls of Tencent Cloud's API. <https://www.tencentcloud.com/document/api/215>

use bytes::Bytes;
use flannel_model::config::access_key::AccessKeyConfig;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answers::decode;
use super::signature::{CONTENT_TYPE, Call};
use crate::CloudError;
use crate::access_key::{AccessKey, AccessKeys};
use crate::http::{Http, Request};
use crate::instance_metadata::InstanceMetadata;
use crate::signed_api::{SignedApi, finish, locate, variable};

/// Another metadata server than the cloud's, by host and port.
const METADATA_HOST: &str = "TENCENT_METADATA_HOST";
/// Another endpoint of the API, by its URL.
const ENDPOINT: &str = "FLANNELD_TENCENT_VPC_ENDPOINT";

/// The API, and the metadata of this instance.
pub(super) struct Api {
    endpoint: String,
    api: SignedApi,
}

impl Api {
    /// As the configuration and the environment say.
    pub(super) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        let variable = |name, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        let host = variable(METADATA_HOST, "metadata.tencentyun.com");
        let metadata = InstanceMetadata::new(host, "tencent-vpc", http.clone());
        let keys = AccessKeys::new(config, "cam/security-credentials/");
        let endpoint = variable(ENDPOINT, "https://vpc.tencentcloudapi.com");
        Self { endpoint, api: SignedApi::new(keys, http, metadata) }
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
        parameters: &Value,
    ) -> Result<T, CloudError> {
        let sign = |key: &AccessKey| request(&self.endpoint, action, region, parameters, key);
        self.api.call(action, sign, decode).await
    }
}

fn request(
    endpoint: &str,
    action: &'static str,
    region: &str,
    parameters: &Value,
    key: &AccessKey,
) -> Result<Request<Bytes>, CloudError> {
    let (uri, host) = locate(action, endpoint)?;
    let body = parameters.to_string();
    let time = Timestamp::now();
    let call = Call { service: "vpc", host: &host, body: body.as_bytes(), time };
    let request = Request::post(uri)
        .header("host", &host)
        .header("content-type", CONTENT_TYPE)
        .header("authorization", call.authorization(&key.id, key.secret.expose()))
        .header("x-tc-action", action)
        .header("x-tc-version", "2017-03-12")
        .header("x-tc-region", region)
        .header("x-tc-timestamp", time.as_second());
    let request = match &key.token {
        Some(token) => request.header("x-tc-token", token.expose()),
        None => request,
    };
    finish(action, request, body)
}
