//! Metadata servers of the form that many clouds have: a text for each path below `/latest/meta-data/`.

use std::time::Duration;

use bytes::Bytes;

use crate::http::{Http, Request, StatusCode};
use crate::{CloudError, Trouble};

/// What its calls are named.
const ACTION: &str = "metadata";
/// It is on the host that the instance runs on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A metadata server.
#[derive(Clone, Debug)]
pub(crate) struct InstanceMetadata {
    /// Its host, and port if that is another than 80.
    host: String,
    /// Which backend it is for.
    backend: &'static str,
    http: Http,
}

impl InstanceMetadata {
    pub(crate) const fn new(host: String, backend: &'static str, http: Http) -> Self {
        Self { host, backend, http }
    }

    /// What stands at `path`: a word.
    pub(crate) async fn word(&self, path: &str) -> Result<String, CloudError> {
        let text = self.get(path).await?;
        let is_word = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte));
        if is_word { Ok(text) } else { Err(self.garbage(path)) }
    }

    /// What stands at `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<String, CloudError> {
        self.find(path).await?.ok_or_else(|| {
            let message =
                format!("there is no {path} at {}: {} is for instances in a VPC", self.host, self.backend);
            self.fail(Trouble::NotFound, message)
        })
    }

    /// The same; nothing where there is no such thing.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<String>, CloudError> {
        let request =
            Request::get(format!("http://{}/latest/meta-data/{path}", self.host)).body(Bytes::new());
        let request = request.map_err(|error| {
            self.fail(Trouble::Refused, format!("{:?} is no host of a metadata server: {error}", self.host))
        })?;
        let answer = self.http.send(ACTION, request, PATIENCE).await.map_err(|error| {
            let message =
                format!("{}; the backend {} is for instances of its cloud", error.message, self.backend);
            CloudError { message, ..error }
        })?;
        match answer.status() {
            StatusCode::OK => match String::from_utf8(answer.into_body().to_vec()) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(self.garbage(path)),
            },
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::TOO_MANY_REQUESTS => Err(self.fail(Trouble::Throttled, "too many requests")),
            status if status.is_server_error() => {
                Err(self.fail(Trouble::Unavailable, format!("{} answers {status}", self.host)))
            }
            status => Err(self.fail(Trouble::Garbage, format!("{} answers {status}", self.host))),
        }
    }

    fn garbage(&self, path: &str) -> CloudError {
        self.http.fail(CloudError::garbage(ACTION, format!("what stands at {path}")))
    }

    fn fail(&self, trouble: Trouble, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, ACTION, message))
    }
}
