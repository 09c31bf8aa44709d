//! One daemon for one network on a host, and for one device.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_model::config::{device_lock, network_lock};
use flannel_model::error::Chain;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::file;

/// How long a killed daemon may still hold it: a program that it was starting holds its files until `execve`.
const AFTERLIFE: Duration = Duration::from_millis(300);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Something in a network namespace that only one daemon may have: the lock of a file that nobody else can open. The
/// kernel releases it when the process ends, however it ends.
///
/// Where such a file cannot be made, as on a read-only `/run`, there is a warning and no protection.
#[derive(Debug)]
pub struct Exclusive {
    _lock: Option<Lock>,
}

#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

/// It is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ExclusiveError {
    /// Another daemon has it.
    #[error("another flanneld on this host {0}; stop it, or give this one another network to serve")]
    Taken(String),
    /// What is at its place was not made by a daemon of this user, so that anybody might hold its lock.
    #[error(
        "{path}, by whose lock flanneld makes sure that it is the only one, {what}: remove it, and let nobody else write to \
         its directory"
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
}

impl Exclusive {
    /// The network whose keys begin with `prefix`.
    ///
    /// # Errors
    /// It is not to be had.
    pub async fn network(prefix: &str) -> Result<Self, ExclusiveError> {
        let prefix = prefix.trim_end_matches('/');
        Self::claim(|namespace| network_lock(prefix, namespace), || format!("serves the network {prefix}"))
            .await
    }

    /// Flannel's device called `name`.
    ///
    /// # Errors
    /// It is not to be had.
    pub async fn device(name: &str) -> Result<Self, ExclusiveError> {
        let what = || format!("has the device {name}, for another network");
        Self::claim(|namespace| device_lock(name, namespace), what).await
    }

    async fn claim(path: impl Fn(u64) -> PathBuf, what: impl Fn() -> String) -> Result<Self, ExclusiveError> {
        // Namespaces are a thread's.
        match fs::metadata("/proc/thread-self/ns/net") {
            Ok(namespace) => Self::claim_at(&path(namespace.ino()), what).await,
            Err(error) => Ok(Self::unprotected(Path::new("/proc/thread-self/ns/net"), &error)),
        }
    }

    async fn claim_at(path: &Path, what: impl Fn() -> String) -> Result<Self, ExclusiveError> {
        let end = Instant::now() + AFTERLIFE;
        loop {
            match Lock::attempt(path) {
                Ok(Some(lock)) => return Ok(Self { _lock: Some(lock) }),
                Ok(None) if Instant::now() < end => sleep(PAUSE).await,
                Ok(None) => return Err(ExclusiveError::Taken(what())),
                Err(Refused::Foreign(what)) => {
                    return Err(ExclusiveError::Foreign { path: path.to_owned(), what });
                }
                Err(Refused::Io(error)) => return Ok(Self::unprotected(path, &error)),
            }
        }
    }

    fn unprotected(path: &Path, error: &io::Error) -> Self {
        warn!(
            "cannot make sure that this is the only flanneld, by the lock of {}: {}; let flanneld write there (systemd: \
             RuntimeDirectory=flannel, Kubernetes: a volume at /run/flannel)",
            path.display(),
            Chain(error)
        );
        Self { _lock: None }
    }
}

/// Why there is no lock.
enum Refused {
    Foreign(String),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// The lock of the file at `path`, which is made where it is absent; nothing while somebody has it.
    fn attempt(path: &Path) -> Result<Option<Self>, Refused> {
        file::create_directory_of(path)?;
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            // Whoever had it before may have removed it between the two.
            if is_at(&file, path) {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let number = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let held = file.metadata().map(number).ok();
    held.is_some() && held == fs::symlink_metadata(path).map(number).ok()
}

/// Opens the file for its owner alone: whoever can open a file can lock it (flock(2)).
fn open(path: &Path) -> Result<File, Refused> {
    if let Ok(found) = fs::symlink_metadata(path) {
        check_own(&found)?;
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(file::PRIVATE);
    let file = options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path)?;
    let metadata = file.metadata()?;
    check_own(&metadata)?;
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(file::PRIVATE))?;
    }
    Ok(file)
}

fn check_own(found: &fs::Metadata) -> Result<(), Refused> {
    if !found.is_file() {
        return Err(Refused::Foreign("is no plain file".to_owned()));
    }
    match found.uid() {
        uid if uid == geteuid().as_raw() => Ok(()),
        uid => Err(Refused::Foreign(format!("belongs to user {uid}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::path::Path;

    use super::{Exclusive, ExclusiveError};

    async fn claim(path: &Path) -> Result<Exclusive, ExclusiveError> {
        Exclusive::claim_at(path, || "does it".to_owned()).await
    }

    #[tokio::test]
    async fn the_second_is_refused_until_the_first_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/a@1.lock");
        let first = claim(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = claim(&path).await.unwrap_err().to_string();
        assert!(error.contains("another flanneld on this host does it"), "{error}");
        claim(&path.with_file_name("b@1.lock")).await.unwrap();
        drop(first);
        assert!(!path.exists(), "nothing is left");
        // One that was killed leaves it.
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = claim(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(second);
    }

    #[tokio::test]
    async fn names_that_anybody_can_take_mean_nothing() {
        let prefix = format!("/test/{}", std::process::id());
        let name = SocketAddr::from_abstract_name(format!("flannel-ebpf network {prefix}")).unwrap();
        let _taken = UnixDatagram::bind_addr(&name).unwrap();
        let first = Exclusive::network(&prefix).await.unwrap();
        let error = Exclusive::network(&format!("{prefix}/")).await.unwrap_err().to_string();
        assert!(error.contains("another flanneld on this host serves the network /test/"), "{error}");
        Exclusive::network(&format!("{prefix}/other")).await.unwrap();
        drop(first);
        Exclusive::network(&prefix).await.unwrap();
    }

    #[tokio::test]
    async fn files_of_others_are_named_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a@1.lock");
        fs::write(&path, "theirs").unwrap();
        chown(&path, Some(65534), None).unwrap();
        let error = claim(&path).await.unwrap_err().to_string();
        assert!(error.contains("a@1.lock") && error.contains("belongs to user 65534: remove it"), "{error}");
        let link = directory.path().join("b@1.lock");
        symlink(&path, &link).unwrap();
        let error = claim(&link).await.unwrap_err().to_string();
        assert!(error.contains("is no plain file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[tokio::test]
    async fn without_a_place_for_the_file_there_is_no_protection() {
        claim(Path::new("/proc/nowhere/a@1.lock")).await.unwrap();
    }
}
