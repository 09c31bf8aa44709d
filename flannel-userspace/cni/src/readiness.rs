//! Whether this host forwards, in the words of the daemon that writes the subnet file.
//!
//! Nobody else can tell: what must be there depends on the backend, on the hook and on the peers. Only what has failed
//! counts. A node that is not available loses its pods, and what is not met yet, as at every start, says nothing of what
//! the daemon before has left in the kernel, which forwards on. For the same reason nothing is claimed where no daemon
//! answers. Stock flannel's has no control socket.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_model::condition::{DATAPATH, FORWARDING};
use flannel_model::config::{RUN_DIR, is_control_socket};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::Deserialize;

/// So long a daemon is waited for. It answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest answer, in bytes.
const LONGEST: u64 = 256 << 10;

#[derive(Deserialize)]
struct Envelope {
    answer: Status,
}

/// What is needed of a daemon's status.
#[derive(Deserialize)]
struct Status {
    conditions: Vec<Condition>,
    settings: Settings,
}

#[derive(Deserialize)]
struct Condition {
    name: String,
    state: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Settings {
    subnet_file: PathBuf,
}

/// Why the daemon that writes `subnet_file` says that this host does not forward any more; nothing if it does, or does not
/// answer.
pub fn complaint(subnet_file: &Path) -> Option<String> {
    let sockets = control_sockets().unwrap_or_default();
    let statuses = sockets.iter().filter_map(|socket| ask(socket).ok());
    let mut ours = statuses.filter(|status| status.settings.subnet_file == subnet_file);
    ours.find_map(|status| status.complaint())
}

impl Status {
    fn complaint(&self) -> Option<String> {
        let failed: Vec<_> = self.conditions.iter().filter(|condition| condition.has_failed()).collect();
        let shown = failed.iter().map(|Condition { name, reason, .. }| match reason {
            Some(reason) => format!("{name}: {reason}"),
            None => name.clone(),
        });
        let shown = shown.collect::<Vec<_>>().join("; ");
        (!failed.is_empty()).then(|| format!("this host does not forward; what failed is {shown}"))
    }
}

impl Condition {
    fn has_failed(&self) -> bool {
        self.state == "failed" && [DATAPATH, FORWARDING].contains(&self.name.as_str())
    }
}

fn control_sockets() -> io::Result<Vec<PathBuf>> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let is_ours = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| is_control_socket(name, namespace))
    };
    let mut sockets: Vec<_> =
        fs::read_dir(RUN_DIR)?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect();
    sockets.sort();
    Ok(sockets)
}

fn ask(path: &Path) -> io::Result<Status> {
    let mut stream = open(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"{\"verb\":\"status\"}\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice::<Envelope>(&answer)?.answer)
}

/// Does not wait where so many others wait for a stopped daemon that the kernel lets no more wait (`unix_stream_connect`).
fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
