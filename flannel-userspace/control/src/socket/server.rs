//! The daemon's end: few connections at a time, each for one question, each for a short time.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::protocol::{Envelope, LONGEST_ANSWER, LONGEST_REQUEST, Outcome, Request, VERSION};
use crate::file;

/// Connections at a time; others wait for a place.
pub(super) const CONNECTIONS: usize = 64;
/// Connections the kernel has wait.
const BACKLOG: u32 = 128;
/// How long a request may take to come, and an answer to go.
const LINE: Duration = Duration::from_secs(2);
/// Pause when the kernel gives no connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Does what it is asked.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Does it, within [`Request::patience`], or is dropped.
    fn serve(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    outcome: Outcome<Value>,
    /// Goes away when the answer was written, or cannot be.
    _until_written: Option<oneshot::Sender<Infallible>>,
}

impl Reply {
    /// It was done.
    pub fn answer(answer: &impl Serialize) -> Self {
        let outcome = serde_json::to_value(answer).map_or_else(
            |error| Outcome::Error(format!("there are no words for it: {error}")),
            Outcome::Answer,
        );
        Self { outcome, _until_written: None }
    }

    /// It was not done, and why.
    #[must_use]
    pub const fn refusal(reason: String) -> Self {
        Self { outcome: Outcome::Error(reason), _until_written: None }
    }

    /// Holds `until_written` until whoever asked has the answer, or is gone.
    #[must_use]
    pub fn holding(self, until_written: oneshot::Sender<Infallible>) -> Self {
        Self { _until_written: Some(until_written), ..self }
    }

    fn line(&self) -> Vec<u8> {
        match line(self.outcome.clone()) {
            whole if whole.len() <= LONGEST_ANSWER => whole,
            _ => line(Outcome::Error("the answer is too long to be given".to_owned())),
        }
    }
}

fn line(outcome: Outcome<Value>) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Envelope { version: VERSION, outcome }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// There is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("there is no control socket {path}")]
pub struct SocketError {
    /// Where it was to be.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A control socket, for the owner alone. It is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens at `path`, in the place of a socket that a daemon has left there. That none listens there is the caller's
    /// to know.
    ///
    /// # Errors
    /// The file system refuses, or something else is there.
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        listen(path).map_err(|source| SocketError { path: path.to_owned(), source })
    }

    /// Answers, for ever.
    pub async fn run(self, server: impl Serve) -> Infallible {
        let mut connections = JoinSet::new();
        let mut is_failing = false;
        loop {
            tokio::select! {
                biased;
                Some(ended) = connections.join_next() => heed(ended),
                accepted = self.socket.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        is_failing = false;
                        connections.spawn(converse(stream, server.clone()));
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            warn!(%error, "cannot accept who asks over the control socket; trying again");
                        }
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another daemon may have it by now. The number of this inode is no other's while the socket holds it.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<Listener> {
    file::create_directory_of(path)?;
    remove_socket(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(file::PRIVATE))?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    Ok(Listener { socket: socket.listen(BACKLOG)?, path: path.to_owned(), inode })
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "something is there that is no socket")),
    }
}

/// What fails in one connection is a bug, and no task of the daemon goes on with one.
fn heed(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn converse(stream: UnixStream, server: impl Serve) {
    let (reading, mut writing) = stream.into_split();
    let reply = match timeout(LINE, request(reading)).await {
        Ok(Ok(request)) => serve(request, &server).await,
        Ok(Err(reason)) => Reply::refusal(reason),
        Err(_) => Reply::refusal(format!("no request came within {LINE:?}")),
    };
    match timeout(LINE, write(&mut writing, &reply)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "who asked over the control socket is gone"),
        Err(_) => debug!("who asked over the control socket does not read the answer"),
    }
}

async fn serve(request: Request, server: &impl Serve) -> Reply {
    debug!(?request, "asked over the control socket");
    let patience = request.patience();
    let late =
        || Reply::refusal(format!("it was not done within {patience:?}; the log of flanneld may say why"));
    timeout(patience, server.serve(request)).await.unwrap_or_else(|_| late())
}

async fn request(reading: OwnedReadHalf) -> Result<Request, String> {
    let mut line = Vec::new();
    // No more is ever read, whatever is sent.
    let mut reading = BufReader::new(reading.take(LONGEST_REQUEST as u64));
    reading
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    if line.len() >= LONGEST_REQUEST && !line.ends_with(b"\n") {
        return Err(format!("the request is longer than {LONGEST_REQUEST} bytes"));
    }
    serde_json::from_slice(&line).map_err(|error| format!("the request cannot be understood: {error}"))
}

async fn write(writing: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    writing.write_all(&reply.line()).await?;
    writing.shutdown().await
}
