//! The running flanneld, found by its lock on the pin directory, and its settings.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use flannel_control::subnet_file::Previous;
use flanneld::cli::{self, Options};
use ipnetwork::Ipv4Network;
use procfs::{LockType, process::Process};
use serde::{Deserialize, Serialize};
use ureq::Agent;

/// How long the daemon has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// A running daemon.
pub(super) struct Daemon {
    /// Its process.
    pub(super) pid: i32,
    /// Its settings, if they can be read.
    pub(super) options: Option<Options>,
}

/// How far the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// `None` if that is not known.
    pub(super) ready: Option<bool>,
    /// Conditions that are not met.
    pub(super) pending: Vec<String>,
    /// Those that were met before, and why they are not.
    pub(super) failing: Vec<Failing>,
    /// What it forwards without, and why.
    pub(super) limits: Vec<String>,
    /// Whether etcd is away; `None` if that is not known.
    pub(super) stale: Option<bool>,
    /// The source: `endpoint`, `subnet_file` or `nothing`.
    pub(super) told_by: &'static str,
}

/// A condition that was met and is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failing {
    /// What.
    pub(super) condition: String,
    /// Why.
    pub(super) reason: String,
    /// For how long.
    pub(super) seconds: u64,
}

impl Readiness {
    /// Of which nothing more is known.
    const fn new(ready: Option<bool>, pending: Vec<String>, told_by: &'static str) -> Self {
        Self { ready, pending, failing: Vec::new(), limits: Vec::new(), stale: None, told_by }
    }
}

impl Daemon {
    /// The daemon that holds `pin_dir`; none where none runs, or it is in another PID namespace. Nothing is locked to
    /// find out: a daemon that starts at that moment would take the lock for another daemon's.
    pub(super) fn find(pin_dir: &Path) -> Option<Self> {
        let inode = std::fs::metadata(pin_dir).ok()?;
        let device = (nix::sys::stat::major(inode.dev()), nix::sys::stat::minor(inode.dev()));
        let locks = procfs::locks().ok()?;
        let ours = locks.iter().find(|lock| {
            lock.lock_type == LockType::FLock
                && lock.inode == inode.ino()
                && (u64::from(lock.devmaj), u64::from(lock.devmin)) == device
        })?;
        // A program that a dead daemon was starting may still have the lock.
        let is_alive = |pid: &i32| Process::new(*pid).is_ok_and(|process| process.is_alive());
        let pid = ours.pid.filter(|pid| *pid > 0).filter(is_alive)?;
        Some(Self { pid, options: options_of(pid) })
    }

    /// Asks the daemon whether it is ready, at `health` or by its flags. Without such an address the subnet file
    /// decides, which is written when the datapath forwards.
    pub(super) fn readiness(&self, health: Option<SocketAddr>, subnet: Option<Ipv4Network>) -> Readiness {
        let endpoints = self.options.as_ref().map(|options| options.endpoints);
        let address = health.or_else(|| endpoints.and_then(|told| told.health.or(told.metrics)));
        if let Some(address) = address {
            return match ask(reachable(address)) {
                Ok(Answer { ready, pending, failing, limits, stale }) => Readiness {
                    ready: Some(ready),
                    pending,
                    failing,
                    limits,
                    stale: Some(stale),
                    told_by: "endpoint",
                },
                Err(error) => {
                    let pending = vec![format!("/readyz at {address} does not answer: {error}")];
                    Readiness::new(Some(false), pending, "endpoint")
                }
            };
        }
        let Some(options) = &self.options else {
            return Readiness::new(None, Vec::new(), "nothing");
        };
        let told =
            Previous::read(&options.subnet_file).ok().flatten().and_then(|file| file.previous_subnets().v4);
        let ready = subnet.is_some() && told.map(|told| told.network()) == subnet.map(|own| own.network());
        let pending = if ready { Vec::new() } else { vec!["subnet file written".to_owned()] };
        Readiness::new(Some(ready), pending, "subnet_file")
    }
}

/// The daemon's settings, from its command line and its variables.
fn options_of(pid: i32) -> Option<Options> {
    let process = Process::new(pid).ok()?;
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let variables = process.environ().ok()?;
    let variable = |name: &str| variables.get(&OsString::from(name)).cloned();
    cli::parse_in(words.map(|word| OsString::from_vec(word.to_vec())), variable).ok()
}

/// A daemon that listens on every address is reached at the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    }
}

#[derive(Deserialize)]
struct Answer {
    ready: bool,
    pending: Vec<String>,
    #[serde(default)]
    failing: Vec<Failing>,
    #[serde(default)]
    limits: Vec<String>,
    stale: bool,
}

fn ask(address: SocketAddr) -> io::Result<Answer> {
    let config = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        // A daemon that is not ready answers 503, with the reason.
        .http_status_as_error(false)
        .max_redirects(0)
        // A proxy from the environment does not lead to this host.
        .proxy(None);
    let request = Agent::from(config.build()).get(format!("http://{address}/readyz?format=json"));
    let mut response = request.call().map_err(ureq::Error::into_io)?;
    let body = response.body_mut().with_config().limit(LONGEST).read_to_vec();
    serde_json::from_slice(&body.map_err(ureq::Error::into_io)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no flanneld's answer"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use super::{ask, reachable};

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            assert_eq!(request[0], "GET /readyz?format=json HTTP/1.1");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn what_is_pending_is_told() {
        let address = answering(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false,\"pending\":[\"lease acquired\"],\"stale\":false}",
        );
        let answer = ask(address).unwrap();
        assert!(!answer.ready && !answer.stale);
        assert_eq!(answer.pending, ["lease acquired"]);
    }

    #[test]
    fn what_fails_and_what_is_limited_is_told() {
        let address = answering(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false,\"pending\":[\"datapath in place\"],\
             \"failing\":[{\"condition\":\"datapath in place\",\"reason\":\"refused\",\"seconds\":7}],\
             \"limits\":[\"no bypass\"],\"stale\":false}",
        );
        let answer = ask(address).unwrap();
        let [failing] = &answer.failing[..] else { panic!("{:?}", answer.failing) };
        assert_eq!((failing.reason.as_str(), failing.seconds), ("refused", 7));
        assert_eq!(answer.limits, ["no bypass"]);
    }

    #[test]
    fn another_program_on_the_port_is_no_answer() {
        let error = ask(answering("HTTP/1.1 200 OK\r\n\r\nhello")).err().unwrap();
        assert_eq!(error.to_string(), "it is no flanneld's answer");
    }

    #[test]
    fn any_address_is_reached_at_the_loopback() {
        assert_eq!(reachable("0.0.0.0:8080".parse().unwrap()).to_string(), "127.0.0.1:8080");
        assert_eq!(reachable("192.0.2.1:8080".parse().unwrap()).to_string(), "192.0.2.1:8080");
    }
}
