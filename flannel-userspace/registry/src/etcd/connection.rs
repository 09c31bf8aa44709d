//! One connection at a time, to one endpoint; on trouble the next endpoint, connected from scratch.

use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use etcd_client::{Client, ResponseHeader};
use flannel_model::lease::{Revision, Snapshot};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::Options;
use crate::error::root;
use crate::{EtcdMetrics, EtcdOperation, RegistryError};

/// How long etcd has for one answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it has for the first answer on a connection, where there are other endpoints to try; twice as long when
/// none of them has answered in that time, and so on.
const FIRST_DEADLINE: Duration = Duration::from_secs(3);

/// The connection that all clones of a registry share.
pub(super) struct Connection {
    options: Options,
    urls: Vec<String>,
    state: Mutex<State>,
    known: std::sync::Mutex<Known>,
    metrics: EtcdMetrics,
}

/// What is known of etcd's history.
#[derive(Default)]
struct Known {
    /// The newest revision that etcd has reported.
    newest: Revision,
    /// Of which history the last listing was.
    history: Option<History>,
}

/// What distinguishes histories with the same revisions: an etcd that is restored from a copy counts on from there, and
/// so did the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct History {
    cluster: u64,
    raft_term: u64,
}

impl History {
    const fn of(header: &ResponseHeader) -> Self {
        Self { cluster: header.cluster_id(), raft_term: header.raft_term() }
    }

    /// Within one history the cluster stays the same, and the terms of its leaders only grow.
    const fn goes_on_in(&self, later: &Self) -> bool {
        self.cluster == later.cluster && self.raft_term <= later.raft_term
    }
}

#[derive(Default)]
struct State {
    /// Counts the connections that ended; selects the endpoint of the next.
    turn: usize,
    client: Option<Client>,
    /// Counts the attempts since an endpoint answered last.
    fruitless: usize,
}

/// A connected client and where it is connected to.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) url: String,
    turn: usize,
    /// Whether it has answered before.
    reused: bool,
    /// How long it has for an answer.
    deadline: Duration,
}

impl Connection {
    pub(super) fn new(options: Options, metrics: EtcdMetrics) -> Result<Self, RegistryError> {
        let urls = options.urls()?;
        Ok(Self { options, urls, state: Mutex::default(), known: std::sync::Mutex::default(), metrics })
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
                    Ok(answer) => {
                        self.note_answer(&session).await;
                        return Ok(answer);
                    }
                    Err(error) if is_refusal(&error) => {
                        self.note_answer(&session).await;
                        return Err(error);
                    }
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
        let (after, operation_phrase) = (session.deadline, operation.phrase());
        let outcome = match timeout(after, request(session.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) if is_not_v3(&source) => Err(RegistryError::NotV3 { endpoint, source }),
            Ok(Err(error)) if is_denied(&error) => Err(RegistryError::Denied {
                operation: operation_phrase,
                endpoint,
                user: self.user(),
                prefix: self.options.prefix.trim_end_matches('/').to_owned(),
            }),
            Ok(Err(error)) => Err(RegistryError::Request { operation: operation_phrase, endpoint, error }),
            Err(_) => Err(RegistryError::Timeout { operation: operation_phrase, endpoint, after }),
        };
        self.metrics.requested(operation, &outcome, since.elapsed());
        outcome
    }

    /// The newest revision that etcd has reported. A listing that is begun now and tells of an older one is of an etcd
    /// that was restored or made anew.
    pub(super) fn newest_revision(&self) -> Revision {
        self.known().newest
    }

    /// Hears of a revision.
    pub(super) fn note_revision(&self, revision: Revision) {
        let mut known = self.known();
        known.newest = known.newest.max(revision);
    }

    /// Whether an answer is of another history than the last listing, as far as it says.
    pub(super) fn is_of_another_history(&self, header: &ResponseHeader) -> bool {
        self.known().history.is_some_and(|known| !known.goes_on_in(&History::of(header)))
    }

    /// Hears of a listing, which may be the first one of another history.
    pub(super) fn note_listing(&self, snapshot: &Snapshot, header: Option<&ResponseHeader>) {
        let Snapshot { revision, history_reset, .. } = *snapshot;
        let mut known = self.known();
        known.newest = if history_reset { revision } else { known.newest.max(revision) };
        known.history = header.map(History::of).or(known.history);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that is connected, or a new one.
    pub(super) async fn session(&self) -> Result<Session, RegistryError> {
        let mut state = self.state.lock().await;
        let turn = state.turn;
        let url = self.urls[turn % self.urls.len()].clone();
        let mut deadline = self.deadline(state.fruitless);
        if let Some(client) = &state.client {
            let reused = state.fruitless == 0;
            if reused {
                deadline = DEADLINE;
            }
            return Ok(Session { client: client.clone(), url, turn, reused, deadline });
        }
        state.fruitless += 1;
        match self.connect(&url, deadline).await {
            Ok(client) => {
                state.client = Some(client.clone());
                Ok(Session { client, url, turn, reused: false, deadline })
            }
            Err(error) => {
                state.turn = turn.wrapping_add(1);
                Err(error)
            }
        }
    }

    /// How long an endpoint has for an answer after this number of fruitless attempts.
    fn deadline(&self, fruitless: usize) -> Duration {
        let rounds = u32::try_from(fruitless / self.urls.len()).unwrap_or(u32::MAX);
        match self.urls.len() {
            1 => DEADLINE,
            _ => FIRST_DEADLINE.saturating_mul(1 << rounds.min(4)).min(DEADLINE),
        }
    }

    /// Takes note that an endpoint has answered.
    async fn note_answer(&self, session: &Session) {
        if !session.reused {
            self.state.lock().await.fruitless = 0;
        }
    }

    async fn connect(&self, url: &str, deadline: Duration) -> Result<Client, RegistryError> {
        let options = self.options.connect_options(url).await?;
        let Some((user, password)) = self.options.user().await? else {
            // There is nothing to ask: the connection comes about with the first request.
            return Client::connect([url], Some(options))
                .await
                .map_err(|error| RegistryError::Connect { endpoint: url.to_owned(), error });
        };
        let since = Instant::now();
        let with_user = options.clone().with_user(&user, password);
        let outcome = match timeout(deadline, Client::connect([url], Some(with_user))).await {
            // As etcd's own clients do: a user is no obstacle where everybody is let in.
            Ok(Err(error)) if says(&error, NOT_ENABLED) => Client::connect([url], Some(options)).await,
            Ok(outcome) => outcome,
            Err(_) => {
                let operation = EtcdOperation::Authenticate.phrase();
                let error = RegistryError::Timeout { operation, endpoint: url.to_owned(), after: deadline };
                return self.count_login(Err(error), since);
            }
        };
        let endpoint = url.to_owned();
        let outcome = outcome.map_err(|error| {
            if is_not_v3(&error) {
                RegistryError::NotV3 { endpoint, source: error }
            } else if matches!(&error, etcd_client::Error::GRpcStatus(status) if is_answer(status)) {
                RegistryError::Login { endpoint, user, error }
            } else {
                RegistryError::Connect { endpoint, error }
            }
        });
        self.count_login(outcome, since)
    }

    fn count_login(
        &self,
        outcome: Result<Client, RegistryError>,
        since: Instant,
    ) -> Result<Client, RegistryError> {
        self.metrics.requested(EtcdOperation::Authenticate, &outcome, since.elapsed());
        outcome
    }

    /// Who asks, in words.
    fn user(&self) -> String {
        self.options.username.clone().unwrap_or_else(|| "of the client certificate".to_owned())
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
            state.turn = session.turn.wrapping_add(1);
            state.client = None;
        }
    }
}

/// What etcd says to a user where everybody is let in.
const NOT_ENABLED: &str = "authentication is not enabled";
/// etcd's complaint about the client: another connection, with a token of its own, may be accepted.
const STRANGER: [&str; 4] =
    [NOT_ENABLED, "invalid user ID or password", "user name is empty", "revision of auth store is old"];

/// Whether the endpoint works and said no: another one would say the same.
fn is_refusal(error: &RegistryError) -> bool {
    let error = match error {
        RegistryError::Denied { .. } => return true,
        RegistryError::Request { error, .. } => error,
        _ => return false,
    };
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    let is_of_the_moment = matches!(
        status.code(),
        Code::Unavailable | Code::Unauthenticated | Code::Cancelled | Code::DeadlineExceeded
    );
    is_answer(status) && !is_of_the_moment && !STRANGER.iter().any(|text| says(error, text))
}

/// Whether the other end said so. A status with a source was made on our side of the wire, of a connection that broke.
fn is_answer(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_none()
}

fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

fn says(error: &etcd_client::Error, text: &str) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains(text))
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
