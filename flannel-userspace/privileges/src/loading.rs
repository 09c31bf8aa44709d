//! The capability by which programs are loaded without speculation barriers.
//!
//! Without it the verifier adds a barrier after nearly every write of a program to its stack, against speculative reads
//! of what was there before (Spectre variant 4). That takes a third of the time of a small packet. The verifiers of
//! many kernels also refuse programs without it that they accept with it.
//!
//! Programs are loaded again when the flannel device or the underlay's address changes. So the thread that loads them
//! keeps the capability, but only permitted; it is effective during a load. It cannot be inherited, and no other thread
//! has it.

use caps::{CapSet, Capability};
use flannel_model::error::Chain;
use tracing::error;

/// See the module.
pub(super) const FOR_LOADING: Capability = Capability::CAP_PERFMON;

/// Does `work`, which creates maps and loads programs, with [`FOR_LOADING`] in effect, if this thread may.
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

/// To be called first in every other thread of the daemon: it loads no programs.
pub fn enter_thread() {
    lower(&[CapSet::Effective, CapSet::Permitted]);
}

/// Whether the capability was put into effect.
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
