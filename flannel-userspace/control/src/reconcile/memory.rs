//! Writing down what is known, now and then, for a boot without registry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flannel_model::error::Chain;
use flannel_model::vxlan::Formats;
use tokio::task::spawn_blocking;
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
    writer: Arc<Mutex<Writer>>,
    /// Whether it is written by another thread: a disk that hangs must not hang the daemon.
    is_slow: bool,
    identity: Identity,
    /// The network's configuration as it stands in the registry.
    config: String,
    /// The formats of VXLAN in which packets are taken, while they are not the configuration's alone.
    formats: Option<Formats>,
    last: Option<Instant>,
    due: Option<Instant>,
    /// Counts what was to be written.
    count: u64,
}

/// Writes, one after the other.
struct Writer {
    store: Box<dyn Store>,
    /// The number of what was written last: what comes later and is older is not.
    written: u64,
    /// Whether it could not be written, which was reported.
    failing: bool,
}

impl Memory {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(store: Box<dyn Store>, identity: Identity, config: String) -> Self {
        let writer = Arc::new(Mutex::new(Writer { store, written: 0, failing: false }));
        Self { writer, is_slow: false, identity, config, formats: None, last: None, due: None, count: 0 }
    }

    /// Writing may take any time, as on a disk: it is left to another thread, but for what is written first and last.
    #[must_use]
    pub fn on_disk(self) -> Self {
        Self { is_slow: true, ..self }
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
        if let Err(error) = writer(&self.writer).store.keep(&former) {
            warn!("{}", Chain(&error));
        }
        None
    }

    /// The network's configuration is that now. It is written soon: a boot without registry is by what is written.
    pub(super) fn configure(&mut self, config: String) {
        if self.config != config {
            self.config = config;
            self.due = Some(Instant::now() + SOON);
        }
    }

    /// Packets are taken in these formats of VXLAN, where they are not the configuration's alone. It is written soon, too.
    pub(super) fn go_over(&mut self, formats: Option<Formats>) {
        if self.formats != formats {
            self.formats = formats;
            self.due = Some(Instant::now() + SOON);
        }
    }

    /// To be called when more is known than is written.
    pub(super) fn note(&mut self) {
        let now = Instant::now();
        let earliest = self.last.map_or(now + SOON, |last| (last + PAUSE).max(now + SOON));
        self.due = self.due.or(Some(earliest));
    }

    /// The same where a start depends on it: how each peer is sent to is known from nowhere else.
    pub(super) fn note_soon(&mut self) {
        let soon = Instant::now() + SOON;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
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
        let remembered = self.remembered(own, peers);
        if !self.is_slow {
            return writer(&self.writer).write(self.count, &remembered);
        }
        if self.writer.try_lock().is_err() {
            // The one before is not written yet.
            self.due = Some(Instant::now() + SOON);
            return;
        }
        let (to, number) = (self.writer.clone(), self.count);
        spawn_blocking(move || writer(&to).write(number, &remembered));
    }

    /// Writes what is known in the end, and returns when it is written.
    pub(super) fn write_last<'a>(&mut self, own: Own, peers: impl Iterator<Item = &'a Peer>) {
        let remembered = self.remembered(own, peers);
        writer(&self.writer).write(self.count, &remembered);
    }

    fn remembered<'a>(&mut self, own: Own, peers: impl Iterator<Item = &'a Peer>) -> Remembered {
        (self.last, self.due) = (Some(Instant::now()), None);
        self.count += 1;
        Remembered::new(self.identity.clone(), self.config.clone(), own, peers).with_formats(self.formats)
    }
}

impl Writer {
    fn write(&mut self, number: u64, remembered: &Remembered) {
        if self.written > number {
            return;
        }
        self.written = number;
        match (self.store.keep(remembered), self.failing) {
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

/// Whoever else writes ends first.
fn writer(of: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use flannel_common::Mac;
    use flannel_model::family::{Addresses, PerFamily, Subnets};
    use tokio::time::{advance, timeout};

    use super::{Memory, Own, REFRESH, Remembered, Store};
    use crate::identity::Identity;
    use crate::remembered::RememberedError;

    /// A disk that hangs until it is told to go on, and tells what is written.
    struct Disk {
        go_on: mpsc::Receiver<()>,
        written: mpsc::Sender<Remembered>,
    }

    impl Store for Disk {
        fn keep(&self, remembered: &Remembered) -> Result<(), RememberedError> {
            let _ = self.go_on.recv();
            let _ = self.written.send(remembered.clone());
            Ok(())
        }
    }

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
        memory.write(own(1), [].iter());
        memory.refresh();
        assert_eq!(memory.due(), None, "it was written just now");
        advance(REFRESH).await;
        memory.refresh();
        assert!(memory.due().is_some());
    }

    fn own(expires: u64) -> Own {
        let (public, subnets) = (Addresses::default(), Subnets::NONE);
        Own { public, subnets, term: None, expires: Some(expires), vtep_macs: PerFamily::NONE }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_nothing_up_and_gets_the_last_word() {
        let ((resume, go_on), (sender, written)) = (mpsc::channel(), mpsc::channel());
        let identity = Identity::of(Mac([2, 0, 0, 0, 0, 1]));
        let store = Box::new(Disk { go_on, written: sender });
        let mut memory = Memory::new(store, identity, "{}".to_owned()).on_disk();
        timeout(Duration::from_secs(5), async {
            memory.write(own(1), [].iter());
            tokio::time::sleep(Duration::from_millis(100)).await;
            memory.write(own(2), [].iter());
        })
        .await
        .unwrap();
        assert!(memory.due().is_some(), "it is tried again");
        drop(resume);
        memory.write_last(own(3), [].iter());
        let all: Vec<Option<u64>> = written.try_iter().map(|written| written.own.expires).collect();
        assert_eq!(all, [Some(1), Some(3)]);
    }
}
