//! One daemon for one network on a host, and for one device.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a killed daemon may still hold it: a program that it was starting holds its sockets until `execve`.
const AFTERLIFE: Duration = Duration::from_millis(300);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Something on this host that only one daemon may have. It is a name in the abstract namespace of Unix sockets, of
/// which every network namespace has its own, and is released when the process ends.
#[derive(Debug)]
pub(super) struct Exclusive {
    _socket: UnixDatagram,
}

/// Another daemon has it.
#[derive(Debug, thiserror::Error)]
pub enum ExclusiveError {
    /// Another daemon has it.
    #[error("another flanneld on this host {0}; stop it, or give this one another network to serve")]
    Taken(String),
    /// The socket is not available.
    #[error("cannot make sure that this is the only flanneld")]
    Socket(#[source] io::Error),
}

impl Exclusive {
    /// The network whose keys begin with `prefix`.
    pub(super) async fn network(prefix: &str) -> Result<Self, ExclusiveError> {
        let prefix = prefix.trim_end_matches('/');
        Self::claim(&format!("network {prefix}"), || format!("serves the network {prefix}")).await
    }

    /// Flannel's device called `name`.
    pub(super) async fn device(name: &str) -> Result<Self, ExclusiveError> {
        Self::claim(&format!("device {name}"), || format!("has the device {name}, for another network")).await
    }

    async fn claim(name: &str, what: impl Fn() -> String) -> Result<Self, ExclusiveError> {
        let bind =
            || UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("flannel-ebpf {name}"))?);
        let end = Instant::now() + AFTERLIFE;
        loop {
            match bind() {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(ExclusiveError::Socket(error));
                }
                Err(_) if Instant::now() < end => sleep(PAUSE).await,
                Err(_) => return Err(ExclusiveError::Taken(what())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exclusive;

    #[tokio::test]
    async fn the_second_is_refused_until_the_first_ends() {
        let prefix = format!("/test/{}", std::process::id());
        let first = Exclusive::network(&prefix).await.unwrap();
        let error = Exclusive::network(&format!("{prefix}/")).await.unwrap_err().to_string();
        assert!(error.contains("another flanneld on this host serves the network /test/"), "{error}");
        Exclusive::network(&format!("{prefix}/other")).await.unwrap();
        drop(first);
        Exclusive::network(&prefix).await.unwrap();
    }
}
