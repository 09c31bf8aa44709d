//! The end of whoever asks a daemon.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::protocol::{Envelope, LONGEST_ANSWER, Outcome, Request, VERSION};

/// For so long beyond [`Request::patience`] an answer is waited for.
const MARGIN: Duration = Duration::from_secs(1);
/// Pause where so many others ask that the kernel has none wait any more.
const CROWDED: Duration = Duration::from_millis(20);

/// What a daemon answered.
#[derive(Clone, Debug)]
pub struct Told<A> {
    /// Its process, in the PID namespace of who asks; nothing where it is not to be seen from there.
    pub pid: Option<u32>,
    /// The answer.
    pub answer: A,
}

/// There is no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon listens.
    #[error("no flanneld answers at {path}")]
    Nobody {
        /// Where one would.
        path: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot ask flanneld at {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A daemon has the socket and is silent.
    #[error("flanneld at {path} did not answer within {after:?}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Its process, if that can be told.
        pid: Option<u32>,
        /// How long that was.
        after: Duration,
    },
    /// The daemon has closed the connection without an answer.
    #[error("flanneld at {path} has ended before it answered")]
    Ended {
        /// The socket.
        path: PathBuf,
    },
    /// What was answered is no answer of this version.
    #[error("what answers at {path} is no flanneld of this version: use the flannelctl that came with it")]
    Foreign {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon does not do it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon that listens at `path`.
///
/// # Errors
/// None listens; it is silent, cannot be understood, or does not do it.
pub async fn ask<A: DeserializeOwned>(path: &Path, request: Request) -> Result<Told<A>, AskError> {
    let after = request.patience() + MARGIN;
    let mut pid = None;
    match timeout(after, converse(path, request, &mut pid)).await {
        Ok(Ok(line)) if line.is_empty() => Err(AskError::Ended { path: path.to_owned() }),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            Err(AskError::Ended { path: path.to_owned() })
        }
        Ok(Ok(line)) => read(path, &line).map(|answer| Told { pid, answer }),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Err(AskError::Nobody { path: path.to_owned() })
        }
        Ok(Err(source)) => Err(AskError::Io { path: path.to_owned(), source }),
        Err(_) => Err(AskError::Silent { path: path.to_owned(), pid, after }),
    }
}

async fn converse(path: &Path, request: Request, pid: &mut Option<u32>) -> io::Result<Vec<u8>> {
    let mut stream = connect(path).await?;
    // Of a process that is not to be seen from here the kernel says 0.
    *pid = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER as u64).read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(CROWDED).await,
            connected => return connected,
        }
    }
}

fn read<A: DeserializeOwned>(path: &Path, line: &[u8]) -> Result<A, AskError> {
    let foreign = || AskError::Foreign { path: path.to_owned() };
    let envelope: Envelope<A> = serde_json::from_slice(line).map_err(|_| foreign())?;
    match envelope.outcome {
        _ if envelope.version != VERSION => Err(foreign()),
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Error(reason) => Err(AskError::Refused(reason)),
    }
}
