//! Another configuration takes effect while the host is served.

use std::time::Duration;

use flannel_model::config::BackendConfig;
use flannel_model::vxlan::{Formats, VxlanFormat};
use flannel_registry::LeaseSource;
use tokio::time::Instant;
use tracing::info;

use super::Loop;
use crate::backend::{self, Backend, Transition};
use crate::configuration::Served;
use crate::kernel::Kernel;
use crate::until;

/// For how long this host takes packets either way when `DirectRouting` has changed. By then every host whose connection
/// to the registry works has heard of it.
const GOING_OVER: Duration = Duration::from_secs(10);

/// The configuration that is in force, and the change to the next one.
pub(super) struct Configured {
    served: Served,
    /// As it is configured.
    backend: BackendConfig,
    /// The formats of VXLAN in which packets are taken.
    formats: Option<Formats>,
    /// As it is in force, and what is still under way to it.
    in_force: (BackendConfig, Transition),
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
    /// The configuration by which this host was set up, which takes packets in these formats of VXLAN.
    pub(super) fn new(mut served: Served, formats: Option<Formats>) -> Self {
        let backend = served.borrow_and_update().backend.clone();
        let in_force = (backend.clone(), Transition::default());
        let mut configured = Self { served, backend, formats, in_force, settled: None };
        configured.in_force = configured.due(formats);
        configured
    }

    /// Waits until there is something to do. Dropping the future loses nothing.
    pub(super) async fn change(&mut self) -> Change {
        tokio::select! {
            // Where nobody follows it there is no other.
            Ok(()) = self.served.changed() => Change::Other,
            () = until(self.settled) => Change::Settled,
        }
    }

    /// Takes note of the change; returns the text of the configuration.
    fn note(&mut self, change: &Change) -> String {
        match change {
            Change::Other => {
                let next = self.served.borrow_and_update().backend.clone();
                let before = std::mem::replace(&mut self.backend, next.clone());
                if before.direct_routing() != next.direct_routing() {
                    self.settled = Some(Instant::now() + GOING_OVER);
                }
            }
            Change::Settled => self.settled = None,
        }
        self.served.borrow().text.clone()
    }

    /// The formats of VXLAN in which packets are taken.
    pub(super) const fn formats(&self) -> Option<Formats> {
        self.formats
    }

    /// The formats on the way to that of the configuration.
    pub(super) fn next_formats(&self) -> Option<Formats> {
        Some(self.formats?.toward(self.backend.vxlan_format()?))
    }

    /// Whether peers may use a former format of VXLAN.
    pub(super) fn has_former(&self) -> bool {
        self.formats.is_some_and(|formats| formats.former.is_some())
    }

    /// The format that is configured.
    pub(super) const fn wanted_format(&self) -> Option<VxlanFormat> {
        self.backend.vxlan_format()
    }

    /// The formats, where they are not that of the configuration alone.
    pub(super) fn formats_to_remember(&self) -> Option<Formats> {
        self.formats.filter(|formats| self.backend.vxlan_format().map(Formats::only) != Some(*formats))
    }

    /// Packets are taken in these formats from now on.
    pub(super) const fn set_formats(&mut self, formats: Formats) {
        self.formats = Some(formats);
    }

    /// What the configuration comes to with these formats.
    fn due(&self, formats: Option<Formats>) -> (BackendConfig, Transition) {
        let backend = match formats {
            Some(formats) => self.backend.with_vxlan_format(formats.present),
            None => self.backend.clone(),
        };
        let former = formats.and_then(|formats| formats.former);
        (backend, Transition { routing: self.settled.is_some(), former })
    }

    /// The backend with these formats.
    pub(super) fn backend_with(&self, formats: Formats) -> Box<dyn Backend> {
        let (backend, transition) = self.due(Some(formats));
        backend::between(&backend, transition)
    }

    /// The backend by which what was noted takes effect, if that is another one.
    fn take(&mut self) -> Option<Box<dyn Backend>> {
        let due = self.due(self.formats);
        let before = std::mem::replace(&mut self.in_force, due);
        let (backend, transition) = &self.in_force;
        (before != self.in_force).then(|| backend::between(backend, *transition))
    }
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    /// Has the configuration take effect.
    pub(super) async fn configure(&mut self, change: Change) {
        let text = self.configuration.note(&change);
        self.memory.configure(text);
        if matches!(change, Change::Settled) {
            info!("DirectRouting takes effect: every peer has heard of it");
        }
        self.go_over().await;
        self.take_effect().await;
    }

    /// Brings what was noted into force.
    pub(super) async fn take_effect(&mut self) {
        self.memory.go_over(self.configuration.formats_to_remember());
        if let Some(backend) = self.configuration.take() {
            self.keeper.configure(backend);
            if let Some(formats) = self.configuration.formats() {
                self.must_list |= self.peers.go_over(formats);
            }
            self.sweep().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_model::config::Configuration;
    use flannel_model::vxlan::Formats;
    use tokio::sync::watch;
    use tokio::time::{Duration, Instant, timeout};

    use super::{Configured, GOING_OVER};

    fn configuration(backend: &str) -> Configuration {
        Configuration::parse(format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"Type":"vxlan"{backend}}}}}"#))
            .unwrap()
    }

    const DIRECT: &str = r#","DirectRouting":true"#;

    /// What is done about the next change: whether the backend then depends on hops, and so does not tunnel everything.
    async fn next(configured: &mut Configured) -> Option<bool> {
        let change = configured.change().await;
        configured.note(&change);
        configured.take().map(|backend| backend.depends_on_hop())
    }

    #[tokio::test(start_paused = true)]
    async fn direct_routing_takes_effect_when_everybody_has_heard_of_it() {
        let (sender, served) = watch::channel(configuration(""));
        let mut configured = Configured::new(served, None);
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
    async fn another_format_is_in_force_once_it_is_prepared() {
        let (sender, served) = watch::channel(configuration(""));
        let before = configuration("").backend.vxlan_format().unwrap();
        let mut configured = Configured::new(served, Some(Formats::only(before)));
        assert_eq!(configured.formats_to_remember(), None);
        sender.send_replace(configuration(r#","VNI":7"#));
        assert_eq!(next(&mut configured).await, None, "its device cannot be had");
        assert_eq!(configured.formats_to_remember(), Some(Formats::only(before)), "not what is configured");
        let both = configured.next_formats().unwrap();
        configured.set_formats(both);
        let backend = configured.take().unwrap();
        assert_eq!(backend.formats(), Some(both));
        assert_eq!(configured.formats_to_remember(), Some(both));
        sender.send_replace(configuration(r#","VNI":9"#));
        assert_eq!(next(&mut configured).await, None);
        assert_eq!(configured.next_formats(), Some(both), "the third one waits");
        configured.set_formats(both.settled());
        let next = configured.next_formats().unwrap();
        assert_eq!((next.present.vni.get(), next.former), (9, Some(both.present)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_touch_the_backend_leaves_it_alone() {
        let (sender, served) = watch::channel(configuration(""));
        let mut configured = Configured::new(served, None);
        let mut other = configuration("");
        other.network.enable_nftables = true;
        sender.send_replace(other);
        assert_eq!(next(&mut configured).await, None);
        drop(sender);
        assert!(timeout(GOING_OVER * 10, configured.change()).await.is_err(), "nobody follows it any more");
    }
}
