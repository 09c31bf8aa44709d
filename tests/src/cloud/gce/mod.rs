//! Google's cloud: a metadata server and the part of the Compute Engine API that routes need. Operations take their time:
//! each is PENDING and RUNNING before it is DONE, and only then has it an effect.

mod api;
mod metadata;
mod state;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};

pub use self::state::{Instance, Route, State};
use super::mood::answer;
use super::{Caller, Router, Server};
use crate::network::{Host, Network};

/// Where both services listen.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 254), 8081);
/// Longest body of a request.
const LONGEST: usize = 1 << 20;

/// Google's cloud.
#[derive(Debug)]
pub struct Gce {
    state: Arc<Mutex<State>>,
    _server: Server,
}

impl Gce {
    /// A cloud around `network`, with a VPC network in a project of its own where `is_shared`.
    ///
    /// # Errors
    /// Its services cannot be started.
    pub fn start(network: &Network, is_shared: bool) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::new(Router::of(network)?, is_shared)));
        let serving = Arc::clone(&state);
        let service = axum::Router::new().fallback(move |caller: Caller, request: Request<Body>| {
            serve(Arc::clone(&serving), caller, request)
        });
        let server = Server::start(network.router(), ADDRESS, service)?;
        Ok(Self { state, _server: server })
    }

    /// Makes `host` an instance.
    ///
    /// # Errors
    /// It has no interface.
    pub fn add(&self, host: &Host, can_ip_forward: bool) -> Result<()> {
        self.state().add(host, can_ip_forward)
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a daemon finds in its environment.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("GCE_METADATA_HOST", ADDRESS.to_string()),
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", format!("http://{ADDRESS}/compute/v1/")),
            ("HOME", "/nonexistent".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Where a token is given for a key.
    #[must_use]
    pub fn token_uri(&self) -> String {
        format!("http://{ADDRESS}/token")
    }
}

async fn serve(state: Arc<Mutex<State>>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let ConnectInfo(address) = caller;
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", String::new());
    };
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    if head.uri.path().starts_with("/computeMetadata/") || head.uri.path() == "/token" {
        return metadata::serve(&mut lock(), address.ip(), &head, &body);
    }
    let mood = lock().mood;
    mood.wait().await;
    api::serve(&mut lock(), &head, &body)
}
