//! What this host announces: its lease, to the other hosts, and the subnet file, to the programs on this one.

use flannel_model::underlay::Links;

use crate::backend::{Backend, attributes};
use crate::lease::LeaseHandle;
use crate::subnet_file::{Store, SubnetFile, SubnetFileError};

/// Keeps the lease and the subnet file up to date.
pub struct Announcement {
    /// The own lease.
    pub lease: LeaseHandle,
    /// What the subnet file says.
    pub file: SubnetFile,
    /// Where it is kept.
    pub place: Box<dyn Store>,
}

impl Announcement {
    /// Updates the lease.
    pub(super) fn publish(&mut self, backend: &dyn Backend, links: &Links) {
        self.file.mtu = backend.mtu(links);
        self.lease.publish(attributes(backend, links));
    }

    /// Updates the subnet file.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_file(&self) -> Result<(), SubnetFileError> {
        self.place.keep(&self.file)
    }
}
