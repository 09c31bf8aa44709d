//! Where the server listens.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use thiserror::Error;

/// The flags of the endpoint of health.
const HEALTH_FLAGS: &str = "--healthz-ip and --healthz-port";
/// The flag of the endpoint of metrics.
const METRICS_FLAG: &str = "--metrics-listen";

/// Where health and metrics are shown.
///
/// Health is served on both. Metrics reveal more about a network than a stranger need know: the endpoint of health
/// serves them only on a loopback address, or if it is the endpoint of metrics, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `--healthz-ip` and `--healthz-port`.
    pub health: Option<SocketAddr>,
    /// `--metrics-listen`.
    pub metrics: Option<SocketAddr>,
}

/// An endpoint is not available.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The kernel refuses the address.
    #[error("cannot listen on {address}, from {flags}: {}", remedy(source, *address, flags))]
    Address {
        /// Which.
        address: SocketAddr,
        /// What asked for it.
        flags: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread that answers for health and metrics")]
    Thread(#[source] io::Error),
}

/// Bound addresses, at which nobody answers yet.
pub struct Listening(pub(super) Vec<Listener>);

/// A bound address.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    serves_metrics: bool,
}

impl Endpoints {
    /// Binds the addresses, which may need a privilege that the daemon drops later.
    ///
    /// # Errors
    /// An address is not available.
    pub fn listen(&self) -> Result<Listening, ListenError> {
        let health = self.health.filter(|health| self.metrics != Some(*health));
        let health = health.map(|health| listen(health, HEALTH_FLAGS, is_loopback(health)));
        let metrics = self.metrics.map(|metrics| listen(metrics, METRICS_FLAG, true));
        health.into_iter().chain(metrics).collect::<Result<_, _>>().map(Listening)
    }
}

impl Listener {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn serves_metrics(&self) -> bool {
        self.serves_metrics
    }

    pub(super) fn into_socket(self) -> TcpListener {
        self.socket
    }
}

fn listen(address: SocketAddr, flags: &'static str, serves_metrics: bool) -> Result<Listener, ListenError> {
    let listen = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address, serves_metrics })
    };
    listen().map_err(|source| ListenError::Address { address, flags, source })
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What the operator can do.
fn remedy(error: &io::Error, address: SocketAddr, flags: &str) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "port {port} is taken, perhaps by another flanneld on this host; stop what has it (ss -ltnp 'sport = \
             :{port}' tells), or give {flags} another port"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("no interface of this host has the address {}; give {flags} another one", address.ip())
        }
        ErrorKind::PermissionDenied => {
            format!("port {port} takes CAP_NET_BIND_SERVICE; give {flags} one from 1024 on")
        }
        _ => format!("give {flags} another address or port"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rstest::rstest;

    use super::{Endpoints, Listener, Listening};

    #[rstest]
    #[case::none(None, None, &[])]
    #[case::stock_health(Some("0.0.0.0:0"), None, &[false])]
    #[case::loopback_health(Some("127.0.0.1:0"), None, &[true])]
    #[case::loopback_of_ipv6(Some("[::ffff:127.0.0.1]:0"), None, &[true])]
    #[case::metrics(None, Some("0.0.0.0:0"), &[true])]
    #[case::one_for_both(Some("0.0.0.0:0"), Some("0.0.0.0:0"), &[true])]
    #[case::apart(Some("0.0.0.0:0"), Some("127.0.0.1:0"), &[false, true])]
    fn where_metrics_are_shown(
        #[case] health: Option<&str>,
        #[case] metrics: Option<&str>,
        #[case] serves_metrics: &[bool],
    ) {
        let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let endpoints = Endpoints { health: address(health), metrics: address(metrics) };
        let Listening(listeners) = endpoints.listen().unwrap();
        assert_eq!(listeners.iter().map(Listener::serves_metrics).collect::<Vec<_>>(), serves_metrics);
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_the_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let endpoints = Endpoints { health: Some(address), metrics: None };
        let text = endpoints.listen().err().unwrap().to_string();
        assert!(text.starts_with(&format!("cannot listen on {address}")), "{text}");
        assert!(text.contains(&format!("port {} is taken", address.port())), "{text}");
        assert!(text.contains("--healthz-port"), "{text}");
        let endpoints = Endpoints { health: None, metrics: Some(address) };
        let text = endpoints.listen().err().unwrap().to_string();
        assert!(text.contains("--metrics-listen"), "{text}");
    }

    #[test]
    fn an_address_that_is_not_here_is_named() {
        let endpoints = Endpoints { health: Some("192.0.2.1:8081".parse().unwrap()), ..Endpoints::default() };
        let text = endpoints.listen().err().unwrap().to_string();
        assert!(text.contains("no interface of this host has the address 192.0.2.1"), "{text}");
    }
}
