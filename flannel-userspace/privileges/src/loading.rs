//! The capability by which programs are loaded as they are.
//!
//! With it the kernel takes programs as they are. Without, it has the processor wait behind nearly every word that a
//! program writes to its stack, lest speculation read what was there before (a third of the time of a small packet), and
//! the verifiers of many kernels refuse what they take with it. All that is meant for programs of people who are not
//! trusted with the kernel's memory.
//!
//! Programs are loaded again when the flannel device is another one, or the underlay's address. So the thread that loads
//! them keeps the capability, but only permitted: in effect it is for as long as a load takes. It cannot be inherited,
//! and is in no other thread.

use caps::{CapSet, Capability};
use flannel_model::error::Chain;
use tracing::error;

/// See the module.
pub(super) const FOR_LOADING: Capability = Capability::CAP_PERFMON;

/// Does `work`, in which maps are made and programs loaded, with [`FOR_LOADING`] in effect, if this thread may.
pub fn while_loading<T>(work: impl FnOnce() -> T) -> T {
    let is_raised = raise();
    let done = work();
    if is_raised {
        lower(&[CapSet::Effective]);
    }
    done
}

/// Whether this thread may use [`FOR_LOADING`].
#[must_use]
pub fn can_load_fast() -> bool {
    has(CapSet::Permitted)
}

/// What another thread of the daemon begins with: it loads no programs.
pub fn enter_thread() {
    lower(&[CapSet::Effective, CapSet::Permitted]);
}

/// Whether the capability is in effect now that was not before.
fn raise() -> bool {
    !has(CapSet::Effective)
        && has(CapSet::Permitted)
        && caps::raise(None, CapSet::Effective, FOR_LOADING)
            .inspect_err(|error| error!("loading programs without {FOR_LOADING}: {}", Chain(error)))
            .is_ok()
}

fn lower(sets: &[CapSet]) {
    for set in sets {
        if let Err(error) = caps::drop(None, *set, FOR_LOADING) {
            error!("cannot give {FOR_LOADING} up: {}", Chain(&error));
        }
    }
}

fn has(set: CapSet) -> bool {
    caps::has_cap(None, set, FOR_LOADING).unwrap_or(false)
}
