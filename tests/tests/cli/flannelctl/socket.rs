//! Where the daemon answers, from its first moment to its last, and what is made of it when it does not.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, HostOptions, Network, Place};
use flannel_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{ask, ask_json};

const SOON: Duration = Duration::from_secs(5);

fn one_host() -> Cluster {
    Cluster::start(&Plan { places: vec![Place::Near], ..Plan::new(r#"{"Type":"vxlan"}"#) }).unwrap()
}

#[test]
fn its_owners_alone_and_there_while_the_daemon_is() {
    let mut cluster = one_host();
    let socket = cluster.members[0].daemon.socket().to_owned();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    cluster.members[0].daemon.terminate().unwrap();
    assert!(!socket.exists());
    let daemon = &mut cluster.members[0].daemon;
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    daemon.kill().unwrap();
    assert!(socket.exists(), "nobody was there to remove it");
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    assert_eq!(mode(&socket), 0o600);
    let (code, status) = ask_json(&cluster.members[0], &["status"]);
    assert_eq!((code, &status["daemon"]["told_by"]), (Some(0), &"socket".into()), "{status}");
}

#[test]
fn a_second_daemon_leaves_the_first_ones_socket_alone() {
    let mut cluster = one_host();
    let pid = cluster.members[0].daemon.pid().unwrap();
    let settings = cluster.settings(&[]);
    let mut second = Daemon::start_as(&cluster.members[0].node.host, "second", settings).unwrap();
    assert_eq!(second.wait_end(SOON).unwrap().code(), Some(1));
    let said = fs::read_to_string(second.log()).unwrap();
    assert!(said.contains("another flanneld on this host serves the network"), "{said}");
    let (_, status) = ask_json(&cluster.members[0], &["status"]);
    assert_eq!(status["daemon"]["pid"], pid, "{status}");
    cluster.members[0].daemon.check_running().unwrap();
}

#[test]
fn a_daemon_of_another_network_is_found_by_its_pin_directory() {
    let cluster = one_host();
    cluster.etcd.put("/other/config", r#"{"Network":"10.9.0.0/16","Backend":{"Type":"host-gw"}}"#).unwrap();
    let settings = Settings { prefix: "/other".to_owned(), ..cluster.settings(&[]) };
    let mut other = Daemon::start_as(&cluster.members[0].node.host, "other", settings).unwrap();
    other.wait_ready().unwrap();
    for daemon in [&other, &cluster.members[0].daemon] {
        let status = daemon.ctl_json("status").unwrap();
        assert_eq!(status["daemon"]["pid"], daemon.pid().unwrap(), "{status}");
    }
}

#[test]
fn without_a_socket_the_daemon_goes_on_and_says_so() {
    let mut cluster = one_host();
    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    fs::write(daemon.socket(), "somebody's").unwrap();
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    let said = fs::read_to_string(daemon.log()).unwrap();
    let (path, socket) = (daemon.socket().display().to_string(), daemon.socket().to_owned());
    assert!(said.contains(&format!("there is no control socket {path}: something is there")), "{said}");
    assert!(said.contains("RuntimeDirectory=flannel"), "{said}");
    let (code, _, told) = ask(&cluster.members[0], &["log-level"]);
    assert!(code == Some(1) && told.contains("no flanneld answers at"), "{told}");
    cluster.members[0].daemon.terminate().unwrap();
    assert_eq!(fs::read_to_string(socket).unwrap(), "somebody's");
}

#[test]
fn a_daemon_that_waits_for_etcd_answers_and_is_not_ready() {
    let mut cluster = one_host();
    let daemon = &mut cluster.members[0].daemon;
    daemon.terminate().unwrap();
    cluster.etcd.kill().unwrap();
    let daemon = &mut cluster.members[0].daemon;
    let _ = fs::remove_file(daemon.state_file());
    daemon.restart().unwrap();
    let pid = daemon.pid().unwrap();
    let member = &cluster.members[0];
    let since = Instant::now();
    let (code, status) = ask_json(member, &["status", "--wait", "--timeout=5"]);
    assert_eq!((code, &status["daemon"]["ready"]), (Some(3), &false.into()), "{status}");
    assert!(since.elapsed() >= Duration::from_secs(5));
    assert_eq!((&status["daemon"]["pid"], &status["attached"]), (&pid.into(), &true.into()));
    assert_eq!(status["daemon"]["registry"]["state"], "waiting", "{status}");
    assert_eq!(status["daemon"]["pending"][0], "network configuration read", "{status}");
    let (code, _, said) = ask(member, &["leave", "--yes"]);
    assert!(code == Some(1) && said.contains("holds no lease yet"), "{said}");
    let (code, told, said) = ask(member, &["log-level", "debug"]);
    assert_eq!((code, told.as_str()), (Some(0), "debug; by the command line info\n"), "{said}");
    let (code, _, said) = ask(member, &["reload"]);
    assert!(code == Some(1) && said.contains("nothing is changed"), "{said}");

    cluster.etcd.restart().unwrap();
    let (code, status) = ask_json(&cluster.members[0], &["status", "--wait", "--timeout=20"]);
    assert_eq!((code, &status["daemon"]["ready"]), (Some(0), &true.into()), "{status}");
    assert_eq!(status["daemon"]["registry"]["state"], "reached", "{status}");
    let subnet = cluster.members[0].node.file.subnet.to_string();
    assert_eq!(status["daemon"]["lease"]["subnets"][0], subnet, "{status}");
    let left = status["daemon"]["lease"]["expires_seconds"].as_u64().unwrap();
    assert!((86_000..=86_400).contains(&left), "{left}");
}

#[test]
fn before_there_is_a_datapath_the_daemon_tells_what_it_waits_for() {
    let network = Network::new().unwrap();
    let host = Host::new(&network, Place::Near, 1, HostOptions::default()).unwrap();
    let settings = Settings {
        endpoint: "http://192.168.77.1:2379".to_owned(),
        prefix: PREFIX.to_owned(),
        flags: Vec::new(),
    };
    let daemon = Daemon::start(&host, settings).unwrap();
    wait::until_true("the socket", SOON, || daemon.socket().exists()).unwrap();
    let error = format!("{:#}", daemon.ctl("status").unwrap_err());
    assert!(error.contains("exit status: 3"), "{error}");
    let program = flannel_tests::binaries::find("flannelctl").unwrap();
    let mut command = host.namespace.command(program).unwrap();
    command.arg("--pin-dir").arg(daemon.pin_dir()).args(["-o", "json", "status"]);
    let answer: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!((&answer["attached"], &answer["daemon"]["ready"]), (&false.into(), &false.into()), "{answer}");
    assert_eq!(answer["daemon"]["pending"].as_array().map(Vec::len), Some(6), "{answer}");
}

#[test]
fn a_daemon_that_is_stuck_is_not_ready() {
    let cluster = one_host();
    let member = &cluster.members[0];
    member.daemon.suspend().unwrap();
    let (code, status) = ask_json(member, &["status"]);
    member.daemon.signal(Signal::SIGCONT).unwrap();
    assert_eq!((code, &status["daemon"]["ready"]), (Some(3), &false.into()), "{status}");
    assert_eq!(status["daemon"]["pid"], member.daemon.pid().unwrap(), "{status}");
    assert!(status["daemon"]["pending"][0].as_str().unwrap().contains("did not answer within"), "{status}");
}

#[test]
fn clients_that_say_nothing_or_junk_do_not_hold_the_daemon_up() {
    let mut cluster = one_host();
    let member = &cluster.members[0];
    let resident = || {
        let text = fs::read_to_string(format!("/proc/{}/status", member.daemon.pid().unwrap())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = resident();
    let connect = || UnixStream::connect(member.daemon.socket()).unwrap();
    let silent: Vec<UnixStream> = (0..32).map(|_| connect()).collect();
    let mut flooding: Vec<UnixStream> = (0..16).map(|_| connect()).collect();
    for stream in &mut flooding {
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = stream.write_all(&vec![b'{'; 1 << 20]);
    }
    let since = Instant::now();
    let (code, status) = ask_json(member, &["status"]);
    assert_eq!((code, &status["daemon"]["ready"]), (Some(0), &true.into()), "{status}");
    println!("asked beside 48 others: answered after {:?}", since.elapsed());
    let key = format!("{PREFIX}/subnets/10.5.77.0-24");
    let value = r#"{"PublicIP":"192.168.77.77","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}}"#;
    cluster.etcd.put(&key, value).unwrap();
    let knows = || member.daemon.ctl("peers").is_ok_and(|peers| peers.contains("10.5.77.0/24"));
    wait::until_true("the peer to be known", SOON, knows).unwrap();
    let after = resident();
    assert!(after < before + 4096, "{before} kB, then {after} kB");
    drop((silent, flooding));
    cluster.members[0].daemon.check_running().unwrap();
}
