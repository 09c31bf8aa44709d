//! What is answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::{Exposition, Failure, Format, Limit, Vitals};

/// What is served.
#[derive(Clone)]
pub(super) struct Shown {
    vitals: Vitals,
    exposition: Arc<Exposition>,
    /// Only one client reads the metrics at a time: they take a while if there are many peers.
    scraper: Arc<Semaphore>,
}

impl Shown {
    pub(super) fn new(vitals: Vitals, exposition: Exposition) -> Self {
        Self { vitals, exposition: Arc::new(exposition), scraper: Arc::new(Semaphore::new(1)) }
    }
}

/// Health; and metrics, or where they are.
pub(super) fn routes(shown: &Shown, with_metrics: bool) -> Router {
    let metrics = if with_metrics { get(metrics) } else { get(metrics_are_elsewhere) };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", metrics)
        .with_state(shown.clone())
}

/// As stock flannel.
async fn healthz() -> &'static str {
    "flanneld is running"
}

async fn livez(State(shown): State<Shown>) -> Response {
    let stopped = shown.vitals.liveness.stopped();
    if stopped.is_empty() {
        return "flanneld is alive".into_response();
    }
    let mut text = "flanneld is stuck".to_owned();
    for (name, silence) in stopped {
        text.push_str(&format!("\n{name}: no heartbeat for {} s", silence.as_secs()));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Whether the host forwards. Field names are a stable interface.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// Conditions that are not met.
    pending: Vec<&'static str>,
    /// What stands in their way, if that is known.
    obstacle: Option<String>,
    /// Those that were met before, and why they are not.
    failing: Vec<Failing>,
    /// What the host forwards without, and why.
    limits: Vec<String>,
    /// Whether etcd is away, so that forwarding continues with the known peers.
    stale: bool,
    /// Why the host is served by another configuration than the network's.
    outdated: Option<String>,
    #[serde(skip)]
    stale_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Failing {
    condition: &'static str,
    reason: String,
    seconds: u64,
}

impl Ready {
    fn of(vitals: &Vitals) -> Self {
        let conditions = &vitals.conditions;
        let pending = conditions.pending();
        let ready = pending.is_empty();
        let failing = conditions.failures().into_iter().map(Failing::of).collect();
        let stale = conditions.stale().filter(|_| ready);
        Self {
            ready,
            obstacle: conditions.obstacle().filter(|_| !ready),
            pending,
            failing,
            limits: conditions.limits().iter().map(Limit::to_string).collect(),
            stale: stale.is_some(),
            outdated: conditions.outdated(),
            stale_reason: stale,
        }
    }

    /// The first line is stock flannel's.
    fn text(&self) -> String {
        let mut text = if self.ready { "flanneld is ready" } else { "flanneld is not ready yet" }.to_owned();
        for pending in &self.pending {
            text.push_str(&format!("\npending: {pending}"));
        }
        if let Some(obstacle) = &self.obstacle {
            text.push_str(&format!("\nwaiting: {obstacle}"));
        }
        for Failing { condition, reason, seconds } in &self.failing {
            text.push_str(&format!("\nfailing: {condition}: {reason} (for {seconds} s)"));
        }
        for limit in &self.limits {
            text.push_str(&format!("\nlimited: {limit}"));
        }
        if let Some(reason) = self.stale_reason {
            text.push_str(&format!("\nstale: {reason}"));
        }
        if let Some(reason) = &self.outdated {
            text.push_str(&format!("\noutdated: {reason}"));
        }
        text
    }
}

impl Failing {
    fn of(Failure { condition, reason, age }: Failure) -> Self {
        Self { condition, reason, seconds: age.as_secs() }
    }
}

async fn readyz(State(shown): State<Shown>, uri: Uri, headers: HeaderMap) -> Response {
    let ready = Ready::of(&shown.vitals);
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !wants_json(&uri, &headers) {
        return (status, ready.text()).into_response();
    }
    match serde_json::to_string(&ready) {
        Ok(json) => (status, [(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => failed(&error),
    }
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    let is_asked = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "format=json"));
    is_asked || accept(headers).contains("application/json")
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let format = Format::accepted(&accept(&headers));
    let Ok(_place) = shown.scraper.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let exposition = Arc::clone(&shown.exposition);
    // Health is served meanwhile.
    match tokio::task::spawn_blocking(move || exposition.encode(format)).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

async fn metrics_are_elsewhere() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "metrics are shown here only on a loopback address; --metrics-listen ADDRESS:PORT shows them elsewhere",
    )
}

fn failed(error: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

/// All media types that are accepted, on one line.
fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",").to_ascii_lowercase()
}
