//! What a run makes outside itself, and how that is removed.
//!
//! A [`Claim`] removes its object when it is dropped, so also when a test panics. On SIGINT and SIGTERM everything
//! still claimed is removed before the process ends. What a run leaves that was killed is recognised by the process id
//! in its name, and the next run takes it away.

mod cgroup;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::signal::unix::{SignalKind, signal};

/// Where named network namespaces are.
pub const NAMESPACES: &str = "/run/netns";
/// Where the BPF file system is.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Something of this run.
#[derive(Clone, Debug)]
pub enum Thing {
    /// A process started by this one and not yet waited for.
    Child(Pid),
    /// A named network namespace.
    Namespace(String),
    /// A directory, on the BPF file system or elsewhere, with all it holds.
    Directory(PathBuf),
    /// A file, which may be gone.
    File(PathBuf),
    /// The cgroup of that name in each hierarchy, with those below it, once their processes are gone.
    Cgroup(String),
}

impl Thing {
    fn remove(&self) -> Result<()> {
        match self {
            Self::Child(pid) => {
                kill(*pid, Signal::SIGKILL).with_context(|| format!("cannot end process {pid}"))
            }
            Self::Namespace(name) => remove_namespace(name),
            Self::Directory(path) if path.exists() => {
                fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
            }
            Self::File(path) if path.exists() => {
                fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
            }
            Self::Directory(_) | Self::File(_) => Ok(()),
            Self::Cgroup(name) => cgroup::remove(name),
        }
    }
}

/// Holds a [`Thing`] and takes it away when dropped.
#[derive(Debug)]
pub struct Claim {
    number: u64,
}

#[derive(Default)]
struct Claims {
    things: BTreeMap<u64, Thing>,
    next: u64,
}

static CLAIMS: Mutex<Claims> = Mutex::new(Claims { things: BTreeMap::new(), next: 0 });

impl Claim {
    /// Claims what is about to be made, or has just been made.
    #[must_use]
    pub fn new(thing: Thing) -> Self {
        let mut claims = claims();
        let number = claims.next;
        claims.next += 1;
        claims.things.insert(number, thing);
        Self { number }
    }

    /// Gives up the claim; the caller removes the object.
    pub fn release(self) {
        claims().things.remove(&self.number);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let thing = claims().things.remove(&self.number);
        report(thing.map_or(Ok(()), |thing| thing.remove()));
    }
}

fn claims() -> MutexGuard<'static, Claims> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("left behind: {error:#}");
    }
}

/// Makes this process ready to play a network: it must be root, and what dead runs left is removed.
///
/// # Errors
/// The process is not root.
pub fn prepare() -> Result<()> {
    static ONCE: Once = Once::new();
    if !geteuid().is_root() {
        bail!("this needs root: it makes network namespaces and loads eBPF programs; run it with sudo");
    }
    ONCE.call_once(|| {
        sweep();
        thread::spawn(|| report(remove_all_on_signal()));
    });
    Ok(())
}

/// The name of an object of this run.
#[must_use]
pub fn name(label: &str) -> String {
    format!("fl-{}-{label}", std::process::id())
}

/// A new directory of this run, removed with the claim.
///
/// # Errors
/// It cannot be made.
pub fn directory(label: &str) -> Result<(PathBuf, Claim)> {
    let path = std::env::temp_dir().join(name(label));
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok((path.clone(), Claim::new(Thing::Directory(path))))
}

fn remove_all_on_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let number = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        anyhow::Ok(tokio::select! {
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
        })
    })?;
    // The lock is held to the end: nothing is claimed any more, and no other thread removes the same.
    let claims = claims();
    eprintln!("\n{number}: removing what this run has made");
    for thing in claims.things.values().rev() {
        report(thing.remove());
    }
    exit(128 + number as i32)
}

/// Removes what runs have left whose process is gone.
fn sweep() {
    for name in stale(Path::new(NAMESPACES)) {
        report(remove_namespace(&name));
    }
    for place in [PathBuf::from(BPFFS), std::env::temp_dir()] {
        for name in stale(&place) {
            report(Thing::Directory(place.join(name)).remove());
        }
    }
    for name in cgroup::hierarchies().iter().flat_map(|hierarchy| stale(hierarchy)) {
        report(cgroup::remove(&name));
    }
}

fn stale(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_stale(name)).collect()
}

fn is_stale(name: &str) -> bool {
    let pid = name.strip_prefix("fl-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

fn remove_namespace(name: &str) -> Result<()> {
    if !Path::new(NAMESPACES).join(name).exists() {
        return Ok(());
    }
    let output = Command::new("ip").args(["netns", "delete", name]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("network namespace {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Claim, Thing, directory, is_stale, name};

    #[test]
    fn names_of_the_living_and_of_others_are_kept() {
        assert!(!is_stale(&name("1-h1")));
        assert!(!is_stale("flannel.1"));
        assert!(!is_stale("fl-x-h1"));
        assert!(is_stale(&format!("fl-{}-1-h1", u32::MAX)));
    }

    #[test]
    fn directory_goes_with_its_claim() {
        let (path, claim) = directory("claim-test").unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(claim);
        assert!(!path.exists());
        let _nothing_to_remove = Claim::new(Thing::Directory(path));
    }
}
