//! What the delegate was told, kept until its interface is removed.
//!
//! One file for each attachment, named `<container>:<interface>`: neither name can have a colon. Stock flannel has one
//! for each container, named `<container>`. Such files are read, too, so that the pods that stock flannel has made are
//! removed as they were made.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

use crate::delegate_conf::DelegateConf;
use crate::error::CniError;
use crate::note::note;
use crate::request::Attachment;

/// What runtimes of Kubernetes name a pod's interface: a file of stock flannel does not say it.
const POD_INTERFACE: &str = "eth0";

/// A folder of such files. It may be that of several networks.
#[derive(Debug)]
pub struct Saved<'a> {
    folder: &'a Path,
}

/// A file, and what it holds.
#[derive(Debug)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// What the delegate was told.
    pub conf: DelegateConf,
}

/// A file whose container is gone.
#[derive(Debug)]
pub struct Stale {
    /// What it was for.
    pub attachment: Attachment,
    /// The file.
    pub kept: Kept,
}

impl<'a> Saved<'a> {
    /// Those in `folder`, which need not exist.
    pub const fn new(folder: &'a Path) -> Self {
        Self { folder }
    }

    /// What was told for this attachment to that network; nothing if that is not known, or the file is damaged.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn find(&self, attachment: &Attachment, network: &str) -> Result<Option<Kept>, CniError> {
        if let Some(kept) = self.own(attachment)? {
            return Ok(Some(kept));
        }
        let of_stock = read(self.folder.join(&attachment.container))?;
        Ok(of_stock.filter(|kept| kept.conf.network() == Some(network)))
    }

    /// The same, without what stock flannel keeps.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn own(&self, attachment: &Attachment) -> Result<Option<Kept>, CniError> {
        read(self.path(attachment))
    }

    /// Keeps what the delegate is told: after this has returned, also if the machine loses power.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep(&self, attachment: &Attachment, conf: &DelegateConf) -> Result<(), CniError> {
        let path = self.path(attachment);
        self.write(attachment, &path, conf)
            .map_err(|error| CniError::internal(format!("cannot write {}: {error}", path.display())))
    }

    fn write(&self, attachment: &Attachment, path: &Path, conf: &DelegateConf) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder)?;
        let unfinished = self.unfinished(attachment);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(O_NOFOLLOW);
        let mut file = options.open(&unfinished)?;
        file.write_all(conf.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(self.folder)?.sync_all()
    }

    /// Forgets what the delegate was told, also where that is damaged or half written.
    ///
    /// # Errors
    /// A file stays.
    pub fn forget(&self, attachment: &Attachment, kept: Option<&Kept>) -> Result<(), CniError> {
        let of_stock = kept.map(|kept| kept.path.clone());
        for path in [self.path(attachment), self.unfinished(attachment)].into_iter().chain(of_stock) {
            remove(&path)?;
        }
        Ok(())
    }

    /// The files of this network that are for none of the `valid` attachments.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn stale(&self, network: &str, valid: &BTreeSet<Attachment>) -> Result<Vec<Stale>, CniError> {
        let unread = |error| CniError::internal(format!("cannot read {}: {error}", self.folder.display()));
        let mut stale = Vec::new();
        let entries = match fs::read_dir(self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(stale),
            entries => entries.map_err(unread)?,
        };
        for entry in entries {
            let entry = entry.map_err(unread)?;
            let name = entry.file_name();
            let Some(attachment) = name.to_str().and_then(|name| unless_valid(name, valid)) else { continue };
            let kept = read(entry.path())?.filter(|kept| kept.conf.network() == Some(network));
            stale.extend(kept.map(|kept| Stale { attachment, kept }));
        }
        Ok(stale)
    }

    fn path(&self, Attachment { container, interface }: &Attachment) -> PathBuf {
        self.folder.join(format!("{container}:{interface}"))
    }

    /// Where a file is written that has its name when it is complete. No two commands for one attachment run at once.
    fn unfinished(&self, Attachment { container, interface }: &Attachment) -> PathBuf {
        self.folder.join(format!(".{container}:{interface}"))
    }
}

/// The attachment of a file of this name, unless it is valid or the file is none of ours.
fn unless_valid(name: &str, valid: &BTreeSet<Attachment>) -> Option<Attachment> {
    if name.starts_with('.') {
        return None;
    }
    let attachment = |container: &str, interface: &str| Attachment {
        container: container.to_owned(),
        interface: interface.to_owned(),
    };
    match name.split_once(':') {
        Some((container, interface)) => {
            Some(attachment(container, interface)).filter(|attachment| !valid.contains(attachment))
        }
        None => (!valid.iter().any(|valid| valid.container == name)).then(|| attachment(name, POD_INTERFACE)),
    }
}

fn read(path: PathBuf) -> Result<Option<Kept>, CniError> {
    match fs::read(&path) {
        Ok(text) => {
            let conf = DelegateConf::parse(&text);
            if conf.is_none() {
                note(format_args!("flannel: {} is damaged", path.display()));
            }
            Ok(conf.map(|conf| Kept { path, conf }))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(CniError::internal(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Removes a file that may be gone.
///
/// # Errors
/// It stays.
pub fn remove(path: &Path) -> Result<(), CniError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(CniError::internal(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
