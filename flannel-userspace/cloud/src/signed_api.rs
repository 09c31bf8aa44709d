//! APIs whose calls are signed with an access key.

use std::env;
use std::time::Duration;

use bytes::Bytes;

use crate::access_key::{AccessKey, AccessKeys};
use crate::http::{Http, Request, RequestBuilder, Uri};
use crate::instance_metadata::InstanceMetadata;
use crate::{CloudError, Trouble};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An API, and the metadata of this instance, which may have a key.
pub(crate) struct SignedApi {
    keys: AccessKeys,
    http: Http,
    pub(crate) metadata: InstanceMetadata,
}

impl SignedApi {
    pub(crate) const fn new(keys: AccessKeys, http: Http, metadata: InstanceMetadata) -> Self {
        Self { keys, http, metadata }
    }

    /// Has the cloud do `action`, as the request says that `sign` makes for a key, and has `decode` read the status and the
    /// body of the answer.
    pub(crate) async fn call<T>(
        &mut self,
        action: &'static str,
        sign: impl FnOnce(&AccessKey) -> Result<Request<Bytes>, CloudError>,
        decode: impl FnOnce(&'static str, u16, &[u8]) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let key = self.keys.key(&self.metadata).await.map_err(|error| self.http.fail(error))?;
        let answer = self.http.send(action, sign(&key)?, PATIENCE).await?;
        decode(action, answer.status().as_u16(), answer.body()).map_err(|error| {
            if error.is(Trouble::Denied) {
                self.keys.forget();
            }
            self.http.fail(error)
        })
    }
}

/// What a variable of the environment says, unless that is nothing.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL of an endpoint, and its host and port.
pub(crate) fn locate(action: &'static str, endpoint: &str) -> Result<(Uri, String), CloudError> {
    let unusable = |why: String| CloudError::new(Trouble::Refused, action, format!("{endpoint}: {why}"));
    let uri: Uri = endpoint.parse().map_err(|error| unusable(format!("is no URL: {error}")))?;
    let host = uri.authority().ok_or_else(|| unusable("names no host".to_owned()))?.to_string();
    Ok((uri, host))
}

/// The request with `body`, if the key could be written into it.
pub(crate) fn finish(
    action: &'static str,
    request: RequestBuilder,
    body: impl Into<Bytes>,
) -> Result<Request<Bytes>, CloudError> {
    // A value that fits in no header may be secret.
    request.body(body.into()).map_err(|_| {
        CloudError::new(Trouble::Denied, action, "the access key has characters that no access key has")
    })
}
