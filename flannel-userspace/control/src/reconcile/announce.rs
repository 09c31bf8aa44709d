//! What this host tells others of itself: its lease, for the other hosts, and the subnet file, for the programs on
//! this one.

use std::path::PathBuf;

use flannel_model::underlay::Underlay;

use crate::backend::Backend;
use crate::lease::LeaseHandle;
use crate::subnet_file::{SubnetFile, SubnetFileError};

/// The lease and the subnet file, kept true.
pub struct Announcement {
    /// Hears of the own lease.
    pub holder: LeaseHandle,
    /// What the subnet file says.
    pub file: SubnetFile,
    /// Where it is.
    pub path: PathBuf,
}

impl Announcement {
    /// Has the lease say what is so by now.
    pub(super) fn publish(&mut self, backend: &Backend, underlay: &Underlay) {
        self.file.mtu = backend.mtu();
        self.holder.publish(backend.attributes(underlay.public_ip));
    }

    /// Writes the subnet file unless it says already what it should.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write_file(&self) -> Result<(), SubnetFileError> {
        let is_true = std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.file.to_string());
        if is_true { Ok(()) } else { self.file.write(&self.path) }
    }
}
