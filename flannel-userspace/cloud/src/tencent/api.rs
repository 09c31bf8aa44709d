//! Calls of Tencent Cloud's API. <https://www.tencentcloud.com/document/api/215>

use std::env;
use std::time::Duration;

use bytes::Bytes;
use flannel_model::config::access_key::AccessKeyConfig;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answers::decode;
use super::signature::{CONTENT_TYPE, Call};
use crate::access_key::{AccessKey, AccessKeys};
use crate::http::{Http, Request};
use crate::instance_metadata::InstanceMetadata;
use crate::{CloudError, Trouble};

/// Another metadata server than the cloud's, by host and port.
const METADATA_HOST: &str = "TENCENT_METADATA_HOST";
/// Another endpoint of the API, by its URL.
const ENDPOINT: &str = "FLANNELD_TENCENT_VPC_ENDPOINT";
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API, and the metadata of this instance.
pub(super) struct Api {
    endpoint: String,
    keys: AccessKeys,
    http: Http,
    pub(super) metadata: InstanceMetadata,
}

impl Api {
    /// As the configuration and the environment say.
    pub(super) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        let variable = |name: &str, default: &str| {
            env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let host = variable(METADATA_HOST, "metadata.tencentyun.com");
        Self {
            endpoint: variable(ENDPOINT, "https://vpc.tencentcloudapi.com"),
            keys: AccessKeys::new(config, "cam/security-credentials/"),
            metadata: InstanceMetadata::new(host, "tencent-vpc", http.clone()),
            http,
        }
    }

    /// Has the cloud do `action` in `region`.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        action: &'static str,
        region: &str,
        parameters: &Value,
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
        parameters: &Value,
        key: &AccessKey,
    ) -> Result<Request<Bytes>, CloudError> {
        let unusable =
            |why: String| CloudError::new(Trouble::Refused, action, format!("{}: {why}", self.endpoint));
        let uri: ::http::Uri =
            self.endpoint.parse().map_err(|error| unusable(format!("is no URL: {error}")))?;
        let host = uri.authority().ok_or_else(|| unusable("names no host".to_owned()))?.to_string();
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
        // A value that fits in no header may be secret.
        request.body(Bytes::from(body)).map_err(|_| {
            CloudError::new(Trouble::Denied, action, "the access key has characters that no access key has")
        })
    }
}
