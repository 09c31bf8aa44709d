//! Another configuration takes effect while the host is served.

use std::time::Duration;

use flannel_model::config::BackendConfig;
use flannel_registry::LeaseSource;
use tokio::time::Instant;
use tracing::info;

use super::Loop;
use crate::backend::{self, Backend};
use crate::configuration::Served;
use crate::kernel::Kernel;
use crate::until;

/// For how long this host takes packets either way when `DirectRouting` has changed. By then every host whose connection
/// to the registry works has heard of it.
const GOING_OVER: Duration = Duration::from_secs(10);

/// The configuration that is in force, and the change to the next one.
pub(super) struct Configured {
    served: Served,
    backend: BackendConfig,
    /// When peers have heard that `DirectRouting` has changed.
    settled: Option<Instant>,
}

/// What there is to do about the configuration.
pub(super) enum Change {
    /// It is another one.
    Other,
    /// `DirectRouting` can be as it says.
    Settled,
}

impl Configured {
    pub(super) fn new(mut served: Served) -> Self {
        let backend = served.borrow_and_update().backend;
        Self { served, backend, settled: None }
    }

    /// Waits until there is something to do. Dropping the future loses nothing.
    pub(super) async fn change(&mut self) -> Change {
        tokio::select! {
            // Where nobody follows it there is no other.
            Ok(()) = self.served.changed() => Change::Other,
            () = until(self.settled) => Change::Settled,
        }
    }

    /// Takes the next configuration: its text, and the backend by which it takes effect, if that is another one.
    fn take(&mut self) -> (String, Option<Box<dyn Backend>>) {
        let next = self.served.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.backend, next.backend);
        if before.direct_routing() != next.backend.direct_routing() {
            self.settled = Some(Instant::now() + GOING_OVER);
        }
        let make = if self.settled.is_some() { backend::between } else { backend::of };
        (next.text, (before != next.backend).then(|| make(&next.backend)))
    }

    fn settle(&mut self) -> Box<dyn Backend> {
        self.settled = None;
        backend::of(&self.backend)
    }
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// Has the configuration take effect.
    pub(super) async fn configure(&mut self, change: Change) {
        let backend = match change {
            Change::Other => {
                let (text, backend) = self.configuration.take();
                self.memory.configure(text);
                backend
            }
            Change::Settled => {
                info!("DirectRouting takes effect: every peer has heard of it");
                Some(self.configuration.settle())
            }
        };
        if let Some(backend) = backend {
            self.keeper.configure(backend);
            self.sweep().await;
        }
    }
}
