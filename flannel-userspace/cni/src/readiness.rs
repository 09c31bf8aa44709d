//! Whether this host forwards, in the words of the daemon that writes the subnet file.
//!
//! Nobody else can tell: what must be there depends on the backend, on the hook and on the peers. Where no daemon answers
//! nothing is claimed. The programs that it pinned forward without it, and stock flannel's has no control socket.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    ready: bool,
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

/// Why the daemon that writes `subnet_file` says that this host does not forward; nothing if it does, or does not answer.
pub fn complaint(subnet_file: &Path) -> Option<String> {
    let sockets = control_sockets().unwrap_or_default();
    let statuses = sockets.iter().filter_map(|socket| ask(socket).ok());
    let mut ours = statuses.filter(|status| status.settings.subnet_file == subnet_file && !status.ready);
    ours.next().map(|status| status.complaint())
}

impl Status {
    fn complaint(&self) -> String {
        let unmet = self.conditions.iter().filter(|condition| condition.state != "met");
        let unmet = unmet.map(|Condition { name, state, reason }| match reason {
            Some(reason) => format!("{name}: {reason}"),
            None => format!("{name}: {state}"),
        });
        format!("flanneld is not ready: {}", unmet.collect::<Vec<_>>().join("; "))
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
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
