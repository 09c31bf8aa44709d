//! ADD and CHECK.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use crate::rig::{Host, V4, read, run, start};

#[test]
fn the_delegate_is_told_what_is_kept() {
    let host = Host::new();
    let mut conf = host.conf_of("cbr0", "0.3.1");
    conf["delegate"] = json!({"hairpinMode": true, "isDefaultGateway": true});
    conf["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]});
    let said = host.run("ADD", "pod", "eth0", &conf);
    let expected = json!({"cniVersion": "0.3.1", "ips": [{"address": "10.1.17.2/24"}], "dns": {}});
    assert_eq!(said.result(), &expected);
    let expected = json!({
        "name": "cbr0", "cniVersion": "0.3.1", "type": "bridge",
        "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": false, "mtu": 1472,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.1.17.0/24"}]], "routes": [{"dst": "10.1.0.0/16"}],
        },
        "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]},
    });
    assert_eq!(host.given("ADD"), expected);
    assert_eq!(read(&host.path("data/pod:eth0")), expected);
    assert_eq!(host.calls(), ["ADD pod eth0 /run/netns/no-such-namespace"]);
    let mode = |path: &str| fs::metadata(host.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/pod:eth0")), (0o700, 0o600));
}

#[test]
fn another_delegate_and_its_own_version_of_the_result() {
    let host = Host::new();
    host.install("ptp");
    host.script("ADD", r#"echo '{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.17.2/24"}}'; exit 0"#);
    let mut conf = host.conf("net");
    conf["delegate"] = json!({"type": "ptp"});
    let said = host.run("ADD", "pod", "eth0", &conf);
    assert_eq!(said.result(), &json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.17.2/24"}}));
    assert_eq!(host.given("ADD")["isGateway"], json!(null));
}

#[test]
fn what_failed_is_undone() {
    let host = Host::new();
    host.script("ADD", r#"echo '{"code": 7, "msg": "no", "details": "why"}'; exit 1"#);
    let said = host.run("ADD", "pod", "eth0", &host.conf("net"));
    assert_eq!(said.error(), (7, "no"));
    assert_eq!(said.stdout["details"], "why");
    let calls = ["ADD pod eth0 /run/netns/no-such-namespace", "DEL pod eth0 /run/netns/no-such-namespace"];
    assert_eq!(host.calls(), calls);
    assert_eq!(host.given("DEL"), host.given("ADD"));
    assert!(host.kept().is_empty(), "{:?}", host.kept());
}

#[test]
fn what_cannot_be_undone_is_known_to_del() {
    let host = Host::new();
    host.script("ADD", "exit 1");
    host.script("DEL", "exit 1");
    let said = host.run("ADD", "pod", "eth0", &host.conf("net"));
    assert_eq!(said.error(), (999, "netplugin failed with no error message: exit status: 1"));
    assert!(said.stderr.contains("ADD failed, and undoing it:"), "{said:?}");
    assert_eq!(host.kept(), ["pod:eth0"]);
}

/// The interface that is there is in use.
#[test]
fn a_second_add_leaves_the_first_alone() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    let first = host.given("ADD");
    host.script("ADD", r#"echo '{"code": 999, "msg": "eth0 exists"}'; exit 1"#);
    host.write_subnet_file(&V4.replace("10.1.17", "10.1.18"));
    assert_eq!(host.run("ADD", "pod", "eth0", &host.conf("net")).error(), (999, "eth0 exists"));
    assert_eq!(host.calls().iter().filter(|call| call.starts_with("DEL")).count(), 0);
    assert_eq!(read(&host.path("data/pod:eth0")), first);
}

#[rstest]
#[case::silent("exit 3", 999, "netplugin failed with no error message: exit status: 3")]
#[case::killed("kill -9 $$", 999, "netplugin failed with no error message: signal: 9 (SIGKILL)")]
#[case::only_stderr("echo why >&2; exit 1", 999, "netplugin failed: \"why\\n\"")]
#[case::garbage("echo nonsense; exit 1", 999, "netplugin failed but error parsing its diagnostic message")]
#[case::no_code(r#"echo '{"msg": "x"}'; exit 1"#, 999, "x")]
#[case::no_result("exit 0", 999, "bridge gave no result: ")]
#[case::half_a_result("echo '{\"ips\":'; exit 0", 999, "bridge gave no result: ")]
#[case::an_array("echo '[]'; exit 0", 999, "bridge gave no result: ")]
fn what_delegates_may_say(#[case] does: &str, #[case] code: u64, #[case] msg: &str) {
    let host = Host::new();
    host.script("ADD", does);
    let said = host.run("ADD", "pod", "eth0", &host.conf("net"));
    let error = said.error();
    assert!(error.0 == code && error.1.starts_with(msg), "{said:?}");
    assert_eq!(host.calls().len(), 2, "no DEL: {:?}", host.calls());
    assert!(host.kept().is_empty());
}

#[rstest]
#[case::absent("other", "failed to find plugin \"other\" in path [/no/such/folder ")]
#[case::path("../bin/bridge", "invalid plugin name: ../bin/bridge")]
#[case::nameless("", "no plugin name provided")]
fn no_such_delegate(#[case] plugin: &str, #[case] msg: &str) {
    let host = Host::new();
    let mut conf = host.conf("net");
    conf["delegate"] = json!({"type": plugin});
    let said = host.run("ADD", "pod", "eth0", &conf);
    assert!(said.error().0 == 999 && said.error().1.starts_with(msg), "{said:?}");
    assert!(host.calls().is_empty());
}

#[rstest]
#[case::foreign(
    "foo=bar",
    "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ. "
)]
#[case::no_value("FLANNEL_NETWORK\n", ": \"FLANNEL_NETWORK\" is no KEY=VALUE. ")]
#[case::no_network("FLANNEL_SUBNET=x\n", ": \"FLANNEL_SUBNET=x\" is no network. ")]
fn junk_in_the_subnet_file(#[case] text: &str, #[case] msg: &str) {
    let host = Host::new();
    host.write_subnet_file(text);
    let said = host.run("ADD", "pod", "eth0", &host.conf("net"));
    let (file, end) = (host.path("subnet.env"), "Check the flannel pod log for this node.");
    let separator = if msg.starts_with(':') { "" } else { " " };
    let expected =
        format!("failed to load flannel 'subnet.env' file: {}{separator}{msg}{end}", file.display());
    assert_eq!(said.error(), (999, expected.as_str()));
    assert!(host.calls().is_empty() && host.kept().is_empty());
}

#[test]
fn the_subnet_file_is_waited_for() {
    let host = Host::new();
    let (file, later) = (host.path("subnet.env"), host.path("later"));
    fs::rename(&file, &later).unwrap();
    let daemon = spawn(move || {
        sleep(Duration::from_secs(1));
        fs::rename(later, file).unwrap();
    });
    host.run("ADD", "pod", "eth0", &host.conf("net")).result();
    daemon.join().unwrap();
}

#[test]
fn without_a_subnet_file_later() {
    let host = Host::new();
    fs::remove_file(host.path("subnet.env")).unwrap();
    let start = Instant::now();
    let said = host.run("ADD", "pod", "eth0", &host.conf("net"));
    let expected = format!(
        "failed to load flannel 'subnet.env' file: open {}: no such file or directory. Check the flannel pod log for \
         this node.",
        host.path("subnet.env").display()
    );
    assert_eq!(said.error(), (11, expected.as_str()));
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(host.calls().is_empty() && host.kept().is_empty());
}

#[test]
fn killed_in_the_middle() {
    let host = Host::new();
    host.script("ADD", "touch \"$folder/begun\"; sleep 5");
    let mut child = start(host.command("ADD", "pod", "eth0"), &host.conf("net").to_string());
    await_file(&host.path("bin/begun"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(host.kept(), ["pod:eth0"]);
    // The next boot has no subnet file yet.
    fs::remove_file(host.path("subnet.env")).unwrap();
    host.run("DEL", "pod", "eth0", &host.conf("net")).result();
    assert_eq!(host.given("DEL"), host.given("ADD"));
    assert!(host.kept().is_empty());
}

#[test]
fn a_hundred_at_once() {
    let host = Host::new();
    let conf = host.conf("net").to_string();
    let start_all = |command: &str| -> Vec<_> {
        (0..100).map(|n| start(host.command(command, &format!("pod{n}"), "eth0"), &conf)).collect()
    };
    for (command, kept) in [("ADD", 100), ("DEL", 0)] {
        for child in start_all(command) {
            assert!(child.wait_with_output().unwrap().status.success());
        }
        assert_eq!(host.kept().len(), kept);
    }
    assert_eq!(host.calls().len(), 200);
}

#[test]
fn two_networks_of_one_container() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf("one")).result();
    let (one, mut conf) = (host.given("ADD"), host.conf("two"));
    conf["delegate"] = json!({"bridge": "cni1"});
    host.run("ADD", "pod", "net1", &conf).result();
    let two = host.given("ADD");
    assert_eq!(host.kept(), ["pod:eth0", "pod:net1"]);
    host.run("DEL", "pod", "eth0", &host.conf("one")).result();
    assert_eq!((host.given("DEL"), host.kept()), (one, vec!["pod:net1".to_owned()]));
    host.run("DEL", "pod", "net1", &conf).result();
    assert_eq!((host.given("DEL"), host.kept()), (two, Vec::new()));
}

#[test]
fn a_link_at_the_place_of_a_file_is_not_followed() {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("victim"), "precious").unwrap();
    for name in ["pod:eth0", ".pod:eth0"] {
        std::os::unix::fs::symlink(host.path("victim"), host.path("data").join(name)).unwrap();
    }
    let said = run(host.command("ADD", "pod", "eth0"), &host.conf("net").to_string());
    assert!(said.error().1.starts_with("cannot write "), "{said:?}");
    assert_eq!(fs::read_to_string(host.path("victim")).unwrap(), "precious");
}

#[test]
fn check_has_the_result_and_the_version_of_now() {
    let host = Host::new();
    host.run("ADD", "pod", "eth0", &host.conf_of("net", "0.3.1")).result();
    let mut expected = host.given("ADD");
    let mut conf = host.conf_of("net", "1.0.0");
    conf["prevResult"] = json!({
        "cniVersion": "1.0.0", "ips": [{"address": "10.1.17.2/24", "gateway": "10.1.17.1"}],
        "routes": [{"dst": "10.1.0.0/16"}],
    });
    host.run("CHECK", "pod", "eth0", &conf).result();
    expected["cniVersion"] = "1.0.0".into();
    expected["prevResult"] = conf["prevResult"].clone();
    expected["prevResult"]["routes"][0]["gw"] = "10.1.17.1".into();
    assert_eq!(host.given("CHECK"), expected);
    host.script("CHECK", r#"echo '{"code": 102, "msg": "it is gone"}'; exit 1"#);
    assert_eq!(host.run("CHECK", "pod", "eth0", &conf).error(), (102, "it is gone"));
}

#[test]
fn check_of_what_nobody_knows() {
    let host = Host::new();
    fs::remove_file(host.path("subnet.env")).unwrap();
    let said = host.run("CHECK", "pod", "eth0", &host.conf_of("net", "1.0.0"));
    assert_eq!(said.error(), (999, "nothing is known of interface eth0 of container pod"));
}

fn await_file(path: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not appear", path.display());
        sleep(Duration::from_millis(10));
    }
}
