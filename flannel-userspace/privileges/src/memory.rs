//! The limit of memory that a process may lock, which maps and programs are charged to before 5.11.

use std::fmt;

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use tracing::debug;

/// A limit that maps can exceed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit(rlim_t);

impl MemoryLimit {
    /// The limit of this process; nothing where maps are not charged to it, or there is none.
    #[must_use]
    pub fn of_maps() -> Option<Self> {
        // Since 5.11 (`bpf_map_kmalloc_node` and others) memory is charged to the control group.
        if KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(5, 11, 0)) {
            return None;
        }
        let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
        (limit != RLIM_INFINITY).then_some(Self(limit))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 / 1024)
    }
}

/// Removes the limit if maps are charged to it, or raises it as far as possible. If that is not enough, creating maps
/// fails. To exceed the hard limit takes `CAP_SYS_RESOURCE`, so this comes before that is dropped.
pub fn raise_memory_limit() {
    if MemoryLimit::of_maps().is_none() {
        return;
    }
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).or_else(|_| {
        let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)
    });
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of locked memory");
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryLimit;

    #[test]
    fn a_limit_is_shown_as_ulimit_does() {
        assert_eq!(MemoryLimit(65_536).to_string(), "64 KiB");
    }
}
