//! The one HTTP client for every cloud: bounded in time and size, and counted.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use flannel_control::cloud_metrics::CloudMetrics;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use crate::{CloudError, Trouble};

pub(crate) use ::http::request::Builder as RequestBuilder;
pub(crate) use ::http::{Method, Request, Response, StatusCode, Uri};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: the next call is minutes away.
const IDLE: Duration = Duration::from_secs(20);
/// Longest answer, in bytes. A route table of a thousand routes takes a third of one MB.
const LONGEST: usize = 8 << 20;

/// An HTTP client. Clones share connections and counters.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    metrics: CloudMetrics,
}

impl Http {
    /// A client that trusts the host's certificates of authorities.
    pub(crate) fn new(metrics: CloudMetrics) -> Result<Self, CloudError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let unreadable = |error: io::Error| {
            let message = format!("{error}: install the package ca-certificates, or set SSL_CERT_FILE");
            CloudError::new(Trouble::Refused, "certificates of authorities", message)
        };
        let connector = roots.map_err(unreadable)?.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { client, metrics })
    }

    /// Sends `request`, for `action`, and reads the whole answer within `patience`. Every status is an answer.
    pub(crate) async fn send(
        &self,
        action: &'static str,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<Response<Bytes>, CloudError> {
        self.metrics.called(action);
        let uri = request.uri().clone();
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let answer = timeout(patience, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Failure::Silent(patience)));
        answer.map_err(|failure| {
            let (trouble, message) = match failure {
                Failure::Silent(patience) => {
                    (Trouble::Unreachable, format!("{host} does not answer within {} s", patience.as_secs()))
                }
                Failure::Connection(error) => {
                    (Trouble::Unreachable, format!("{host} cannot be reached: {error}"))
                }
                Failure::Body(error) => {
                    (Trouble::Garbage, format!("the answer of {host} breaks off: {error}"))
                }
            };
            self.fail(CloudError::new(trouble, action, message))
        })
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let answer = self.client.request(request.map(Full::new)).await;
        let answer = answer.map_err(|error| Failure::Connection(innermost(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| Failure::Body(innermost(&*error)))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Counts `error`.
    pub(crate) fn fail(&self, error: CloudError) -> CloudError {
        self.metrics.failed(error.action, error.trouble.label());
        error
    }
}

/// Why there is no answer.
enum Failure {
    Silent(Duration),
    Connection(String),
    Body(String),
}

/// The error that says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
