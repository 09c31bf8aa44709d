//! Readiness: what is still to be done.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Ready while no [`Latch`] is held. Clones share the latches.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    latches: Arc<Mutex<Vec<Weak<Pending>>>>,
}

/// Something that is still to be done. Drop it when it is done.
#[must_use = "a latch that is dropped holds nothing back"]
#[derive(Debug)]
pub struct Latch {
    _pending: Arc<Pending>,
}

#[derive(Debug)]
struct Pending {
    what: &'static str,
}

impl Latch {
    /// It is done. The same as to drop the latch, in a word.
    pub fn release(self) {}
}

impl Readiness {
    /// Holds readiness back until `what` is done. Take every latch before anybody can ask.
    pub fn latch(&self, what: &'static str) -> Latch {
        let pending = Arc::new(Pending { what });
        self.with_latches(|latches| latches.push(Arc::downgrade(&pending)));
        Latch { _pending: pending }
    }

    /// What is still to be done, in the order in which it was taken up.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.with_latches(|latches| {
            latches.retain(|latch| latch.strong_count() > 0);
            latches.iter().filter_map(Weak::upgrade).map(|pending| pending.what).collect()
        })
    }

    fn with_latches<T>(&self, operation: impl FnOnce(&mut Vec<Weak<Pending>>) -> T) -> T {
        operation(&mut self.latches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn ready_when_the_last_latch_is_dropped() {
        let readiness = Readiness::default();
        let lease = readiness.latch("lease acquired");
        let file = readiness.latch("subnet file written");
        assert_eq!(readiness.pending(), ["lease acquired", "subnet file written"]);
        drop(lease);
        assert_eq!(readiness.clone().pending(), ["subnet file written"]);
        file.release();
        assert!(readiness.pending().is_empty());
    }

    #[test]
    fn two_latches_of_one_name_are_two() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.latch("programs attached"), readiness.latch("programs attached"));
        drop(first);
        assert_eq!(readiness.pending(), ["programs attached"]);
        drop(second);
        assert!(readiness.pending().is_empty());
    }
}
