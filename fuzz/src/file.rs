//! Inputs that are read from a file.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory: thousands of inputs a second would wear a disk.
pub struct Memory {
    _file: File,
    path: PathBuf,
}

impl Memory {
    /// A file with this content.
    pub fn new(content: &[u8]) -> Result<Self> {
        let mut file = File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(content)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Ok(Self { _file: file, path })
    }

    /// Where it is read, from its beginning.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
