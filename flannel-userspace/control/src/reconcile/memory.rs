//! Writing down what is known, now and then, for a boot without registry.

use std::time::Duration;

use flannel_model::error::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::identity::Identity;
use crate::lease::Own;
use crate::peers::Peer;
use crate::remembered::{Remembered, Store};

/// Pause between two writings: peers come and go all the time, and the file is written whole.
const PAUSE: Duration = Duration::from_secs(30);
/// After this long it is written again although nothing has changed, so that its age says how old the knowledge is.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// Pause before the first one.
const SOON: Duration = Duration::from_secs(1);

/// The file of what is known, and when to write it.
pub struct Memory {
    store: Box<dyn Store>,
    identity: Identity,
    /// The network's configuration as it stands in the registry.
    config: String,
    last: Option<Instant>,
    due: Option<Instant>,
    /// Whether it could not be written, which was reported.
    failing: bool,
}

impl Memory {
    /// Nothing is written yet.
    #[must_use]
    pub const fn new(store: Box<dyn Store>, identity: Identity, config: String) -> Self {
        Self { store, identity, config, last: None, due: None, failing: false }
    }

    /// What is `remembered` from an earlier life, on a host whose lease is `own` now.
    ///
    /// Where that is another one than before, it is written before anybody is told of it, and nothing is known of the
    /// peers: a host that dies and starts again without registry must not serve the former subnet to pods of this one.
    /// The peers in the file stay until they are listed.
    pub fn begin(&mut self, remembered: Option<Remembered>, own: Own) -> Option<Remembered> {
        let mut former = match remembered {
            Some(remembered) if remembered.own.subnets != own.subnets => remembered,
            remembered => return remembered,
        };
        former.own = own;
        if let Err(error) = self.store.keep(&former) {
            warn!("{}", Chain(&error));
        }
        None
    }

    /// To be called when more is known than is written.
    pub(super) fn note(&mut self) {
        let now = Instant::now();
        let earliest = self.last.map_or(now + SOON, |last| (last + PAUSE).max(now + SOON));
        self.due = self.due.or(Some(earliest));
    }

    /// To be called while what is known is kept up to date.
    pub(super) fn refresh(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() >= REFRESH) {
            self.note();
        }
    }

    /// When to write.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes.
    pub(super) fn write<'a>(&mut self, own: Own, peers: impl Iterator<Item = &'a Peer>) {
        (self.last, self.due) = (Some(Instant::now()), None);
        let remembered = Remembered::new(self.identity.clone(), self.config.clone(), own, peers);
        let written = self.store.keep(&remembered);
        match (written, self.failing) {
            (Ok(()), true) => info!("the state file is written again"),
            (Err(error), false) => {
                warn!("{}; without it this host cannot boot while etcd is away", Chain(&error));
                self.failing = true;
                return;
            }
            _ => return,
        }
        self.failing = false;
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::Mac;
    use flannel_model::family::{Addresses, PerFamily, Subnets};
    use tokio::time::advance;

    use super::{Memory, Own, REFRESH, Remembered, Store};
    use crate::identity::Identity;
    use crate::remembered::RememberedError;

    struct Nowhere;

    impl Store for Nowhere {
        fn keep(&self, _: &Remembered) -> Result<(), RememberedError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_up_to_date_is_written_now_and_then() {
        let identity = Identity::of(Mac([2, 0, 0, 0, 0, 9]));
        let mut memory = Memory::new(Box::new(Nowhere), identity, "{}".to_owned());
        memory.refresh();
        assert_eq!(memory.due(), None, "nothing is known yet");
        let own =
            Own { public: Addresses::NONE, subnets: Subnets::NONE, term: None, vtep_macs: PerFamily::NONE };
        memory.write(own, [].iter());
        memory.refresh();
        assert_eq!(memory.due(), None, "it was written just now");
        advance(REFRESH).await;
        memory.refresh();
        assert!(memory.due().is_some());
    }
}
