//! Health and metrics over HTTP.
//!
//! The server has a thread and a runtime of its own, so that it answers while the daemon is stuck. A connection serves
//! one request and has little time for it; only headers are read.

mod connections;
mod endpoints;
mod routes;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use self::endpoints::Listener;
use self::routes::{Shown, routes};
use super::{Exposition, Vitals};
pub use endpoints::{Endpoints, ListenError, Listening};

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves at these addresses, of which there may be none. Its thread has no more privileges than the caller's.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(listening: Listening, vitals: Vitals, exposition: Exposition) -> Result<Self, ListenError> {
        let Listening(listeners) = listening;
        let addresses = listeners.iter().map(Listener::address).collect();
        if listeners.is_empty() {
            return Ok(Self { addresses, stop: None, thread: None });
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ListenError::Thread)?;
        let shown = Shown::new(vitals, exposition);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("observe".to_owned())
            .spawn(move || run(&runtime, listeners, &shown, stopped))
            .map_err(ListenError::Thread)?;
        Ok(Self { addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its result does not matter, even if it panicked.
            let _ = thread.join();
        }
    }
}

fn run(runtime: &Runtime, listeners: Vec<Listener>, shown: &Shown, stopped: oneshot::Receiver<Infallible>) {
    flannel_privileges::enter_thread();
    runtime.block_on(async {
        for listener in listeners {
            let routes = routes(shown, listener.serves_metrics());
            tokio::spawn(connections::serve(listener.into_socket(), routes));
        }
        // The sender never sends; it is dropped.
        let _ = stopped.await;
    });
}
