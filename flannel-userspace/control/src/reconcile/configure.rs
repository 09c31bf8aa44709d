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
        let backend = served.borrow_and_update().backend.clone();
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
        let before = std::mem::replace(&mut self.backend, next.backend.clone());
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

#[cfg(test)]
mod tests {
    use flannel_model::config::Configuration;
    use tokio::sync::watch;
    use tokio::time::{Duration, Instant, timeout};

    use super::{Change, Configured, GOING_OVER};

    fn configuration(backend: &str) -> Configuration {
        Configuration::parse(format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"Type":"vxlan"{backend}}}}}"#))
            .unwrap()
    }

    const DIRECT: &str = r#","DirectRouting":true"#;

    /// What is done about the next change: whether the backend then depends on hops, and so does not tunnel everything.
    async fn next(configured: &mut Configured) -> Option<bool> {
        let backend = match configured.change().await {
            Change::Other => configured.take().1,
            Change::Settled => Some(configured.settle()),
        };
        backend.map(|backend| backend.depends_on_hop())
    }

    #[tokio::test(start_paused = true)]
    async fn direct_routing_takes_effect_when_everybody_has_heard_of_it() {
        let (sender, served) = watch::channel(configuration(""));
        let mut configured = Configured::new(served);
        sender.send_replace(configuration(DIRECT));
        let since = Instant::now();
        assert_eq!(next(&mut configured).await, Some(true), "packets may come either way");
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert_eq!(next(&mut configured).await, Some(true));
        assert_eq!(since.elapsed(), GOING_OVER);
        sender.send_replace(configuration(""));
        assert_eq!(next(&mut configured).await, Some(true), "packets still may come either way");
        sender.send_replace(configuration(r#","MTU":1400"#));
        assert_eq!(next(&mut configured).await, Some(true), "another change meanwhile does not end that");
        assert_eq!(next(&mut configured).await, Some(false));
        assert_eq!(since.elapsed(), 2 * GOING_OVER);
        assert!(timeout(GOING_OVER * 10, configured.change()).await.is_err(), "nothing is left to do");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_touch_the_backend_leaves_it_alone() {
        let (sender, served) = watch::channel(configuration(""));
        let mut configured = Configured::new(served);
        let mut other = configuration("");
        other.network.enable_nftables = true;
        sender.send_replace(other);
        assert_eq!(next(&mut configured).await, None);
        drop(sender);
        assert!(timeout(GOING_OVER * 10, configured.change()).await.is_err(), "nobody follows it any more");
    }
}
