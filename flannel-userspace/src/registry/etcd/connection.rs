//! One connection at a time, to one endpoint; on trouble the next endpoint, connected from scratch.

use std::future::Future;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::Options;
use crate::observe::{EtcdMetrics, EtcdOperation};
use crate::registry::RegistryError;
use crate::registry::error::root;

/// How long etcd has for one answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The connection that all clones of a registry share.
pub(super) struct Connection {
    options: Options,
    urls: Vec<String>,
    state: Mutex<State>,
    metrics: EtcdMetrics,
}

#[derive(Default)]
struct State {
    /// Counts the connections that came to an end; tells the endpoint of the next.
    turn: usize,
    client: Option<Client>,
}

/// A connected client and where it is connected to.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) url: String,
    turn: usize,
    reused: bool,
}

impl Connection {
    pub(super) fn new(options: Options, metrics: EtcdMetrics) -> Result<Self, RegistryError> {
        let urls = options.urls()?;
        Ok(Self { options, urls, state: Mutex::default(), metrics })
    }

    /// Asks the endpoints one after the other, each at most once, until one answers. A request that an
    /// endpoint answers with a refusal is not put to the others.
    pub(super) async fn call<T, F, Fut>(
        &self,
        operation: EtcdOperation,
        request: F,
    ) -> Result<T, RegistryError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut left = self.urls.len();
        loop {
            let error = match self.session().await {
                Ok(session) => match self.ask(operation, &session, &request).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if is_refusal(&error) => return Err(error),
                    Err(error) => {
                        self.abandon(&session).await;
                        // A connection from earlier may have died unseen, which says nothing of its endpoint.
                        left += usize::from(session.reused);
                        error
                    }
                },
                Err(error) => error,
            };
            left -= 1;
            if left == 0 {
                return Err(error);
            }
            tracing::debug!(error = %error, "trying the next etcd endpoint");
        }
    }

    async fn ask<T, F, Fut>(
        &self,
        operation: EtcdOperation,
        session: &Session,
        request: &F,
    ) -> Result<T, RegistryError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let endpoint = session.url.clone();
        let since = Instant::now();
        let outcome = match timeout(DEADLINE, request(session.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) if is_not_v3(&source) => Err(RegistryError::NotV3 { endpoint, source }),
            Ok(Err(error)) => Err(RegistryError::Request { operation: operation.phrase(), endpoint, error }),
            Err(_) => {
                Err(RegistryError::Timeout { operation: operation.phrase(), endpoint, after: DEADLINE })
            }
        };
        self.metrics.requested(operation, &outcome, since.elapsed());
        outcome
    }

    /// The client that is connected, or a new one.
    pub(super) async fn session(&self) -> Result<Session, RegistryError> {
        let mut state = self.state.lock().await;
        let turn = state.turn;
        let url = self.urls[turn % self.urls.len()].clone();
        if let Some(client) = &state.client {
            return Ok(Session { client: client.clone(), url, turn, reused: true });
        }
        match self.connect(&url).await {
            Ok(client) => {
                state.client = Some(client.clone());
                Ok(Session { client, url, turn, reused: false })
            }
            Err(error) => {
                state.turn = turn.wrapping_add(1);
                Err(error)
            }
        }
    }

    async fn connect(&self, url: &str) -> Result<Client, RegistryError> {
        let options = self.options.connect_options(url).await?;
        let endpoint = url.to_owned();
        // Without a user there is nothing to ask: the connection comes about with the first request.
        let operation = EtcdOperation::Authenticate;
        let since = Instant::now();
        let outcome = match timeout(DEADLINE, Client::connect([url], Some(options))).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(source)) if is_not_v3(&source) => Err(RegistryError::NotV3 { endpoint, source }),
            Ok(Err(error)) => Err(RegistryError::Connect { endpoint, error }),
            Err(_) => {
                Err(RegistryError::Timeout { operation: operation.phrase(), endpoint, after: DEADLINE })
            }
        };
        if self.options.username.is_some() {
            self.metrics.requested(operation, &outcome, since.elapsed());
        }
        outcome
    }

    /// Gives the connection of now up, if there is one. The next one is to the same endpoint, with which nothing is
    /// wrong.
    pub(super) async fn give_up(&self) {
        let mut state = self.state.lock().await;
        if state.client.take().is_some() {
            state.turn = state.turn.wrapping_add(self.urls.len());
        }
    }

    /// Gives a connection up: the next request goes to the next endpoint, with TLS files and a token read
    /// anew.
    pub(super) async fn abandon(&self, session: &Session) {
        let mut state = self.state.lock().await;
        if state.turn == session.turn {
            *state = State { turn: session.turn.wrapping_add(1), client: None };
        }
    }
}

/// Whether the endpoint works and said no: another one would say the same.
fn is_refusal(error: &RegistryError) -> bool {
    let RegistryError::Request { error: etcd_client::Error::GRpcStatus(status), .. } = error else {
        return false;
    };
    // A status with a source was made on our side of the wire, of a connection that broke.
    std::error::Error::source(status).is_none()
        && !matches!(status.code(), Code::Unavailable | Code::Unauthenticated | Code::Cancelled)
}

/// Whether what answers speaks something else than gRPC, or gRPC without etcd's services.
fn is_not_v3(error: &etcd_client::Error) -> bool {
    if let etcd_client::Error::GRpcStatus(status) = error
        && status.code() == Code::Unimplemented
    {
        return true;
    }
    // An HTTP/1.1 answer reads as a frame of impossible size; behind TLS, HTTP/2 is not even negotiated.
    std::iter::successors(root(error), |error| error.source())
        .map(ToString::to_string)
        .any(|text| text.contains("frame with invalid size") || text.contains("HTTP/2 was not negotiated"))
}
