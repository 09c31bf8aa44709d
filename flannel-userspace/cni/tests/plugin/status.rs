//! STATUS.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread::spawn;

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
    let namespace = fs::metadata("/proc/self/ns/net").unwrap().ino();
    fs::create_dir_all(host.path("run")).unwrap();
    UnixListener::bind(host.path("run").join(format!("{network}@{namespace}.sock"))).unwrap()
}

fn said_of(subnet_file: &Path, ready: bool) -> Value {
    let (state, reason) = if ready { ("met", Value::Null) } else { ("failed", json!("flannel.1 is gone")) };
    json!({
        "version": "0.1.0", "pid": 1, "ready": ready,
        "conditions": [
            {"name": "lease", "state": "met", "seconds": 1, "reason": null},
            {"name": "device", "state": state, "seconds": 1, "reason": reason},
        ],
        "settings": {"subnet_file": subnet_file},
    })
}

const COMPLAINT: (u64, &str) = (51, "flanneld is not ready: device: flannel.1 is gone");

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

#[rstest]
#[case::ready(true)]
#[case::unready(false)]
fn the_daemon_is_asked(#[case] ready: bool) {
    let host = Host::new();
    daemon(&host, "kube", &said_of(&host.path("subnet.env"), ready));
    // That of another network says nothing of this one.
    daemon(&host, "another", &said_of(Path::new("/run/flannel/another.env"), false));
    let said = status(&host);
    if ready {
        said.result();
    } else {
        assert_eq!(said.error(), COMPLAINT);
    }
    assert_eq!(host.calls().is_empty(), !ready);
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

#[test]
fn an_answer_of_something_else_says_nothing() {
    let host = Host::new();
    daemon(&host, "foreign", &json!({"ready": "no"}));
    daemon(&host, "kube", &said_of(&host.path("subnet.env"), false));
    assert_eq!(status(&host).error(), COMPLAINT);
}
