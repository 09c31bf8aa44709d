//! Connections: few at a time, and each for a short time.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at a time; others wait.
const CONNECTIONS: usize = 64;
/// How long the headers of a request may take.
const HEADERS: Duration = Duration::from_secs(2);
/// How long a connection may last: as long as Prometheus waits for an answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// Longest headers, in bytes.
const BUFFER: usize = 16 << 10;
/// Pause after a failed `accept`.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves on `socket`, without end.
pub(super) async fn serve(socket: TcpListener, routes: Router) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "health and metrics are not shown"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut is_failing = false;
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                let routes = routes.clone();
                tokio::spawn(async move {
                    answer(stream, routes).await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(%error, "cannot accept a connection for health or metrics; trying again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a request for health or metrics was not answered"),
        Err(_) => debug!("a request for health or metrics took too long"),
    }
}
