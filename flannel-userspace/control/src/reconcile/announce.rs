//! What this host announces: its lease, to the other hosts, the subnet file, to the programs on this one, and the underlay,
//! to the other parts of this daemon.

use flannel_model::underlay::{Links, Underlay};
use tokio::sync::watch;

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
    /// Told of the underlay as it is now.
    pub underlay: watch::Sender<Underlay>,
}

impl Announcement {
    /// Updates the lease, and tells of the underlay.
    pub(super) fn publish(&mut self, backend: &dyn Backend, links: &Links) {
        self.file.mtu = backend.mtu(links);
        self.lease.publish(attributes(backend, links));
        self.underlay.send_if_modified(|underlay| {
            let is_other = *underlay != links.underlay;
            if is_other {
                underlay.clone_from(&links.underlay);
            }
            is_other
        });
    }

    /// Updates the subnet file.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_file(&self) -> Result<(), SubnetFileError> {
        self.place.keep(&self.file)
    }
}
