//! The metadata server of an instance.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;

use super::environment::Environment;
use super::place::{FLAVOR, INSTANCE, InstanceMetadata, PROJECT, Place, TOKEN};
use super::token::Token;
use crate::http::{Http, Request, StatusCode};
use crate::{CloudError, Trouble};

/// What its calls are named.
const ACTION: &str = "metadata";
/// It is on the host that the instance runs on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The metadata server.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    base: String,
    http: Http,
}

impl Metadata {
    pub(super) fn new(environment: &Environment, http: Http) -> Self {
        Self { base: environment.metadata.clone(), http }
    }

    /// Where this instance is, whose interface with `address` carries the packets.
    pub(super) async fn place(&self, address: Option<Ipv4Addr>) -> Result<Place, CloudError> {
        let address =
            address.ok_or_else(|| self.fail(Trouble::Refused, "the underlay has no IPv4 address"))?;
        let instance = self.get(INSTANCE).await?;
        let instance: InstanceMetadata = serde_json::from_slice(&instance)
            .map_err(|error| self.http.fail(CloudError::garbage(ACTION, error)))?;
        let project = self.get(PROJECT).await?;
        let project = String::from_utf8_lossy(&project);
        instance
            .place(project.trim(), address)
            .map_err(|error| self.fail(Trouble::Refused, error.to_string()))
    }

    /// A token of the instance's service account.
    pub(super) async fn token(&self) -> Result<Token, CloudError> {
        let answer = self.get(TOKEN).await.map_err(|error| match error.trouble {
            Trouble::NotFound => CloudError {
                trouble: Trouble::Denied,
                message:
                    "the instance has no service account: give it one, or set GOOGLE_APPLICATION_CREDENTIALS"
                        .to_owned(),
                ..error
            },
            _ => error,
        })?;
        // The error would show a part of the answer, which may be secret.
        serde_json::from_slice(&answer)
            .map_err(|_| self.http.fail(CloudError::garbage(ACTION, "it is no token")))
    }

    async fn get(&self, path: &str) -> Result<Bytes, CloudError> {
        let request =
            Request::get(format!("{}{path}", self.base)).header(FLAVOR.0, FLAVOR.1).body(Bytes::new());
        let request = request.map_err(|error| {
            self.fail(Trouble::Refused, format!("{} is no address of a metadata server: {error}", self.base))
        })?;
        let answer = self.http.send(ACTION, request, PATIENCE).await.map_err(|error| {
            let message = format!("{}; the backend gce is for instances of Compute Engine", error.message);
            CloudError { message, ..error }
        })?;
        if answer.headers().get(FLAVOR.0).is_none_or(|flavor| flavor != FLAVOR.1) {
            let message = format!("who answers at {} is not Google's metadata server", self.base);
            return Err(self.fail(Trouble::Garbage, message));
        }
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            StatusCode::NOT_FOUND => Err(self.fail(Trouble::NotFound, format!("there is no {path}"))),
            StatusCode::TOO_MANY_REQUESTS => Err(self.fail(Trouble::Throttled, "too many requests")),
            status if status.is_server_error() => {
                Err(self.fail(Trouble::Unavailable, format!("it answers {status}")))
            }
            status => Err(self.fail(Trouble::Garbage, format!("it answers {status}"))),
        }
    }

    fn fail(&self, trouble: Trouble, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, ACTION, message))
    }
}
