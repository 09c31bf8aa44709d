//! STATUS.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::spawn;
use std::time::{Duration, Instant};

use flannel_control::socket::{
    Condition, ConditionState, LogLevel, LogLevels, Registry, RegistryKind, RegistryState, RuleSettings,
    Settings, Status,
};
use flannel_model::condition::{DATAPATH, FORWARDING};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as listen_with, socket,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::rig::{Host, Said, program, run};

/// Asks in a mount namespace in which `/run/flannel` is that host's folder `run`.
fn status(host: &Host) -> Said {
    status_of(host, &host.conf_of("net", "1.1.0"))
}

fn status_of(host: &Host, conf: &Value) -> Said {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "sh",
        "-ec",
        "mkdir -p /run/flannel; mount --bind \"$1\" /run/flannel; exec \"$2\"",
        "sh",
    ]);
    fs::create_dir_all(host.path("run")).unwrap();
    unshare.arg(host.path("run")).arg(program());
    run(host.said_to(unshare, "STATUS", "", ""), &conf.to_string())
}

/// A daemon that says this of itself, to everyone who asks.
fn daemon(host: &Host, network: &str, answer: &Value) {
    let listener = listen(host, network);
    let line = format!("{}\n", json!({"version": 1, "answer": answer}));
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            assert_eq!(request, "{\"verb\":\"status\"}\n");
            stream.write_all(line.as_bytes()).unwrap();
        }
    });
}

fn listen(host: &Host, network: &str) -> UnixListener {
    UnixListener::bind(socket_path(host, network)).unwrap()
}

/// Where the daemon of a network listens that serves the network namespace of this test.
fn socket_path(host: &Host, network: &str) -> PathBuf {
    let namespace = fs::metadata("/proc/self/ns/net").unwrap().ino();
    fs::create_dir_all(host.path("run")).unwrap();
    host.path("run").join(format!("{network}@{namespace}.sock"))
}

/// A daemon's status, with one condition in that state.
fn said_of(subnet_file: &Path, name: &str, state: ConditionState) -> Value {
    let reason = (state == ConditionState::Failed).then(|| "flannel.1 is gone".to_owned());
    let leased =
        Condition { name: "subnet leased".to_owned(), state: ConditionState::Met, seconds: 1, reason: None };
    let status = Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        started: 1,
        ready: state == ConditionState::Met,
        conditions: vec![leased, Condition { name: name.to_owned(), state, seconds: 1, reason }],
        limits: Vec::new(),
        lease: None,
        registry: Registry {
            kind: RegistryKind::Etcd,
            node: None,
            endpoints: Vec::new(),
            state: RegistryState::Reached,
        },
        configuration: None,
        cloud: None,
        log_level: LogLevels { level: LogLevel::Info, configured: LogLevel::Info },
        settings: Settings {
            etcd_prefix: "/coreos.com/network".to_owned(),
            pin_dir: "/sys/fs/bpf/flannel".into(),
            state_file: "/var/lib/flannel-ebpf/state".into(),
            subnet_file: subnet_file.to_owned(),
            rules: RuleSettings {
                masquerade: true,
                fully_random: true,
                forward: true,
                guard: true,
                blackhole: false,
            },
        },
    };
    serde_json::to_value(status).unwrap()
}

fn failed(subnet_file: &Path) -> Value {
    said_of(subnet_file, DATAPATH, ConditionState::Failed)
}

const COMPLAINT: (u64, &str) =
    (51, "this host does not forward; what failed is datapath in place: flannel.1 is gone");

#[test]
fn no_subnet_file() {
    let host = Host::new();
    fs::remove_file(host.path("subnet.env")).unwrap();
    let said = status(&host);
    assert_eq!(said.error().0, 50, "{said:?}");
    assert!(said.error().1.ends_with("no such file or directory. Check the flannel pod log for this node."));
    assert!(host.calls().is_empty());
}

#[test]
fn a_configuration_by_which_add_would_fail() {
    let host = Host::new();
    let mut conf = host.conf_of("net", "1.1.0");
    conf["delegate"] = json!({"name": "x"});
    assert_eq!(status_of(&host, &conf).error().0, 50);
    host.write_subnet_file("FLANNEL_MTU\n");
    assert_eq!(status(&host).error().0, 50);
}

#[test]
fn the_delegate_has_the_last_word() {
    let host = Host::new();
    status(&host).result();
    assert_eq!(host.calls(), ["STATUS - - unset"]);
    assert_eq!(host.given("STATUS")["ipam"]["ranges"], json!([[{"subnet": "10.1.17.0/24"}]]));
    host.script("STATUS", r#"echo '{"code": 50, "msg": "no addresses left"}'; exit 1"#);
    assert_eq!(status(&host).error(), (50, "no addresses left"));
}

#[test]
fn where_the_datapath_has_failed_no_pod_is_made() {
    let host = Host::new();
    daemon(&host, "kube", &failed(&host.path("subnet.env")));
    assert_eq!(status(&host).error(), COMPLAINT);
    assert!(host.calls().is_empty());
}

#[test]
fn where_the_host_does_not_forward_neither() {
    let host = Host::new();
    daemon(&host, "kube", &said_of(&host.path("subnet.env"), FORWARDING, ConditionState::Failed));
    assert_eq!(status(&host).error().0, 51);
}

/// A node that is not available loses its pods: not while its daemon starts again, and not for one peer.
#[rstest]
#[case::met(DATAPATH, ConditionState::Met)]
#[case::starting(DATAPATH, ConditionState::Pending)]
#[case::one_peer("every known peer reached", ConditionState::Failed)]
fn where_it_forwards_pods_are_made(#[case] name: &str, #[case] state: ConditionState) {
    let host = Host::new();
    daemon(&host, "kube", &said_of(&host.path("subnet.env"), name, state));
    // That of another network says nothing of this one.
    daemon(&host, "another", &failed(Path::new("/run/flannel/another.env")));
    status(&host).result();
    assert_eq!(host.calls().len(), 1);
}

#[test]
fn a_daemon_of_another_network_namespace_is_not_asked() {
    let host = Host::new();
    fs::create_dir_all(host.path("run")).unwrap();
    let _listener = UnixListener::bind(host.path("run/kube@1.sock")).unwrap();
    status(&host).result();
}

/// What is pinned forwards without it.
#[test]
fn a_daemon_that_does_not_answer_says_nothing() {
    let host = Host::new();
    let silent = listen(&host, "silent");
    status(&host).result();
    drop(silent); // The socket of a daemon that was killed.
    status(&host).result();
}

/// So many ask a daemon that is stopped that the kernel has no further one wait in its queue.
#[test]
fn a_full_queue_is_not_waited_in() {
    let host = Host::new();
    let listener = unix_socket(SockFlag::SOCK_CLOEXEC);
    let address = UnixAddr::new(&socket_path(&host, "stopped")).unwrap();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen_with(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = unix_socket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => waiting.push(socket),
            Err(error) => break assert_eq!(error, Errno::EAGAIN),
        }
    }
    let start = Instant::now();
    status(&host).result();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

fn unix_socket(flags: SockFlag) -> OwnedFd {
    socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap()
}

#[test]
fn an_answer_of_something_else_says_nothing() {
    let host = Host::new();
    daemon(&host, "foreign", &json!({"conditions": "none"}));
    daemon(&host, "kube", &failed(&host.path("subnet.env")));
    assert_eq!(status(&host).error(), COMPLAINT);
}
