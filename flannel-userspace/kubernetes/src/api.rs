//! Requests to the API server: the few that are made, each with a time limit.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::io::{AsyncReadExt as _, BufReader};
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::params::{GetParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{Request, WatchEvent};
use kube::{Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::error::ApiError;
use crate::node::{Listed, Node, Page, Pod};
use flannel_control::throttle::LogThrottle;
use flannel_registry::{KubernetesMetrics, KubernetesOperation as Operation};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many nodes a page has: of some dozen kilobytes each, it is a few megabytes.
const PAGE: u32 = 250;
/// More than any page has, in bytes. What is longer is no answer of an API server.
const LONGEST: u64 = 256 << 20;
/// Who asks.
const USER_AGENT: http::HeaderValue =
    http::HeaderValue::from_static(concat!("flanneld/", env!("CARGO_PKG_VERSION")));
/// After how long the API server is to end a watch, so that hosts come back in time to one that joined. Each host asks
/// for a time of its own from this on, up to twice as long.
const WATCH: u32 = 145;

/// Where the API server is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Its URL, if it is given: `--kube-api-url`.
    pub url: Option<String>,
    /// The kubeconfig file, if one is given: `--kubeconfig-file`.
    pub kubeconfig: Option<PathBuf>,
}

/// The API server. Clones share one connection.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    access: Access,
    connection: Mutex<Connection>,
    /// Whether a request has failed since, in a way that other files may end: another authority, a token that expired.
    is_suspect: AtomicBool,
    /// What was told of denied requests.
    told: Mutex<LogThrottle>,
    metrics: KubernetesMetrics,
}

/// The way to it, as the settings were when it was taken.
#[derive(Clone)]
struct Connection {
    server: String,
    client: Client,
}

impl Connection {
    async fn open(access: &Access) -> Result<Self, ApiError> {
        let config = access.config().await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| ApiError::Client(error.to_string()))?;
        Ok(Self { server, client })
    }
}

/// What a watch reports.
pub(crate) struct Events {
    api: Api,
    stream: BoxStream<'static, Result<WatchEvent<Listed>, kube::Error>>,
    /// A connection that died without a word is silent for longer than the API server would let it be.
    silence: Duration,
}

impl Events {
    /// The next event; nothing when the API server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Result<WatchEvent<Listed>, ApiError>> {
        match timeout(self.silence, self.stream.next()).await {
            Ok(event) => Some(event?.map_err(|error| self.api.failed(Operation::Watch, &error))),
            Err(_) => Some(Err(self.api.late(Operation::Watch, self.silence))),
        }
    }
}

/// What is written into a node's status, in stock flannel's order.
#[derive(Serialize)]
struct StatusPatch<'a> {
    status: Conditions<'a>,
}

#[derive(Serialize)]
struct Conditions<'a> {
    conditions: [NetworkUnavailable<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkUnavailable<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    last_heartbeat_time: &'a str,
    last_transition_time: &'a str,
    reason: &'static str,
    message: &'static str,
}

impl Access {
    /// As stock flannel finds it: without URL and file by the service account of the pod, and outside a pod by the
    /// usual kubeconfig files.
    async fn config(&self) -> Result<Config, ApiError> {
        let settings = |error: &dyn std::fmt::Display| ApiError::Settings(error.to_string());
        let url = self.url.as_ref().map(|url| {
            url.parse().map_err(|error| settings(&format!("--kube-api-url {url} is no URL: {error}")))
        });
        let mut config = match (&self.kubeconfig, url.transpose()?) {
            (None, None) => in_cluster_first().await?,
            (None, Some(url)) => Config::new(url),
            (Some(path), url) => {
                let failed = |error: &dyn std::fmt::Display| ApiError::Kubeconfig {
                    path: path.clone(),
                    reason: error.to_string(),
                };
                let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
                let options = KubeConfigOptions::default();
                let mut config =
                    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))?;
                if let Some(url) = url {
                    config.cluster_url = url;
                }
                config
            }
        };
        config.connect_timeout = Some(PATIENCE);
        // By this the API server names who wrote a field.
        config.headers.push((http::header::USER_AGENT, USER_AGENT));
        // What to do about an API server that has too much to do is decided where it is known what for.
        config.default_retry = false;
        Ok(config)
    }
}

/// As stock flannel's library finds it.
async fn in_cluster_first() -> Result<Config, ApiError> {
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|error| {
        ApiError::Settings(format!(
            "this is no pod with a service account ({in_cluster}), and there is no kubeconfig ({error}): give \
             --kubeconfig-file"
        ))
    })
}

fn nodes() -> Request {
    Request::new("/api/v1/nodes")
}

/// The time as Go writes it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Api {
    pub(crate) async fn open(access: Access, metrics: KubernetesMetrics) -> Result<Self, ApiError> {
        let connection = Mutex::new(Connection::open(&access).await?);
        let (is_suspect, told) = (AtomicBool::new(false), Mutex::default());
        Ok(Self(Arc::new(Inner { access, connection, is_suspect, told, metrics })))
    }

    /// The URL.
    pub(crate) fn server(&self) -> String {
        self.connection().server
    }

    /// Gives the connections up, and reads the settings again; the next request makes new ones.
    pub(crate) async fn reconnect(&self) {
        if let Err(error) = self.open_again().await {
            tracing::warn!("keeping the connections to the API server: {error}");
        }
    }

    async fn open_again(&self) -> Result<(), ApiError> {
        let connection = Connection::open(&self.0.access).await?;
        *self.0.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        Ok(())
    }

    fn connection(&self) -> Connection {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client; after a failure, one that has read the files again.
    async fn client(&self) -> Client {
        if self.0.is_suspect.swap(false, Ordering::Relaxed)
            && let Err(error) = self.open_again().await
        {
            // They are being replaced. Whoever asks says why that fails.
            tracing::debug!("the files for the API server cannot be read: {error}");
        }
        self.connection().client
    }

    pub(crate) async fn pod(&self, namespace: &str, pod: &str) -> Result<Pod, ApiError> {
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        self.ask(Operation::GetPod, request.get(pod, &GetParams::default())).await
    }

    pub(crate) async fn node(&self, name: &str) -> Result<Node, ApiError> {
        self.ask(Operation::GetNode, nodes().get(name, &GetParams::default())).await
    }

    /// One page of all nodes; `next` is where the one before ended, or empty. The first is as new as anything that was
    /// answered before.
    pub(crate) async fn page(&self, next: &str) -> Result<Page, ApiError> {
        let params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        let params = if next.is_empty() { params } else { params.continue_token(next) };
        self.ask(Operation::List, nodes().list(&params)).await
    }

    /// Follows the metadata of all nodes after `version`, until the API server ends that. `share` from 0 to 1 chooses
    /// when it is to.
    pub(crate) async fn watch(&self, version: &str, share: f64) -> Result<Events, ApiError> {
        let seconds = WATCH + (f64::from(WATCH) * share) as u32;
        let params = WatchParams { timeout: Some(seconds), bookmarks: true, ..WatchParams::default() };
        let request = self.built(Operation::Watch, nodes().watch_metadata(&params, version))?;
        let client = self.client().await;
        let events = self.timed(Operation::Watch, client.request_events(request)).await?;
        let silence = Duration::from_secs(u64::from(seconds)) + PATIENCE;
        Ok(Events { api: self.clone(), stream: events.boxed(), silence })
    }

    /// Writes annotations of a node; `null` removes one.
    pub(crate) async fn annotate(
        &self,
        node: &str,
        annotations: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Node, ApiError> {
        let annotations: serde_json::Map<String, Value> = annotations.into_iter().collect();
        let patch = json!({ "metadata": { "annotations": annotations } });
        self.patch_status(Operation::Annotate, node, &patch).await
    }

    /// Says that the node's network is available, in stock flannel's words.
    pub(crate) async fn set_network_available(&self, node: &str) -> Result<Node, ApiError> {
        let now = now();
        let condition = NetworkUnavailable {
            kind: "NetworkUnavailable",
            status: "False",
            last_heartbeat_time: &now,
            last_transition_time: &now,
            reason: "FlannelIsUp",
            message: "Flannel is running on this node",
        };
        let patch = StatusPatch { status: Conditions { conditions: [condition] } };
        self.patch_status(Operation::SetCondition, node, &patch).await
    }

    async fn patch_status(
        &self,
        operation: Operation,
        node: &str,
        patch: &impl Serialize,
    ) -> Result<Node, ApiError> {
        let params = PatchParams::default();
        self.ask(operation, nodes().patch_subresource("status", node, &params, &Patch::Strategic(patch)))
            .await
    }

    /// Tells whoever looks at the node. Stock flannel's role does not allow it, and the log says the same, so a failure
    /// is none.
    pub(crate) async fn tell(&self, node: &str, uid: &str, reason: &str, message: &str) {
        let now = now();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{node}."), "namespace": "default" },
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": { "component": "flanneld", "host": node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let request = Request::new("/api/v1/namespaces/default/events");
        let request = request.create(&PostParams::default(), event.to_string().into_bytes());
        if let Err(error) = self.ask::<Value>(Operation::Tell, request).await {
            tracing::debug!("the event cannot be written: {error}");
        }
    }

    /// Makes a request and reads the answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        operation: Operation,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApiError> {
        let request = self.built(operation, request)?;
        let client = self.client().await;
        let answer = async {
            let body = client.request_stream(request).await?;
            let mut bytes = Vec::new();
            let read = BufReader::new(body).take(LONGEST).read_to_end(&mut bytes).await;
            read.map_err(kube::Error::ReadEvents)?;
            serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)
        };
        self.timed(operation, answer).await
    }

    fn built(
        &self,
        operation: Operation,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<http::Request<Vec<u8>>, ApiError> {
        request.map_err(|error| self.failed(operation, &kube::Error::BuildRequest(error)))
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        let since = Instant::now();
        let outcome = match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.failed(operation, &error)),
            Err(_) => Err(self.late(operation, PATIENCE)),
        };
        if let Err(error) = &outcome {
            self.note(operation, error);
        }
        let code = outcome.as_ref().map_or_else(ApiError::code, |_| "OK".to_owned());
        self.0.metrics.requested(operation, code, since.elapsed());
        outcome
    }

    /// Whoever follows the nodes tells once that the API server is away; that it is there by now, and denies it, is told
    /// here.
    fn note(&self, operation: Operation, error: &ApiError) {
        if error.may_be_of_files() {
            self.0.is_suspect.store(true, Ordering::Relaxed);
        }
        let is_followed = matches!(operation, Operation::List | Operation::Watch);
        if is_followed && matches!(error, ApiError::Denied { .. }) {
            let text = error.to_string();
            if self.0.told.lock().unwrap_or_else(PoisonError::into_inner).should_log(&text) {
                tracing::warn!("{text}");
            }
        }
    }

    fn late(&self, operation: Operation, after: Duration) -> ApiError {
        ApiError::Timeout { server: self.server(), operation: operation.phrase(), after }
    }

    fn failed(&self, operation: Operation, error: &kube::Error) -> ApiError {
        ApiError::of(&self.server(), operation.phrase(), error)
    }
}
