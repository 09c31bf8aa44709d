//! What is the same for all commands.

use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::rig::{Host, program, run};

#[test]
fn version() {
    let mut command = Command::new(program());
    command.env("CNI_COMMAND", "VERSION");
    let versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions": versions});
    assert_eq!(run(command, "").result(), &expected);
}

#[test]
fn by_hand() {
    let said = run(Command::new(program()), "");
    assert_eq!(said.result(), &Value::Null);
    assert!(said.stderr.starts_with("CNI plugin flannel of flannel-ebpf "), "{said:?}");
    assert!(said.stderr.contains("supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"), "{said:?}");
}

#[rstest]
#[case("ADD", "1.2.0", "incompatible CNI versions")]
#[case("DEL", "1.2.0", "incompatible CNI versions")]
#[case("CHECK", "0.3.1", "config version does not allow CHECK")]
#[case("STATUS", "1.0.0", "config version does not allow STATUS")]
#[case("GC", "1.0.0", "config version does not allow GC")]
fn versions_that_do_not_fit(#[case] command: &str, #[case] version: &str, #[case] msg: &str) {
    let host = Host::new();
    let said = host.run(command, "pod", "eth0", &host.conf_of("net", version));
    assert_eq!(said.error(), (1, msg));
    assert!(host.calls().is_empty());
}

#[test]
fn every_version_is_handed_on() {
    let host = Host::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let said = host.run("ADD", version, "eth0", &host.conf_of("net", version));
        assert_eq!(
            (&said.result()["cniVersion"], &host.given("ADD")["cniVersion"]),
            (&json!(version), &json!(version))
        );
    }
    assert_eq!(host.run("ADD", "pod", "eth0", &host.conf("net")).result()["cniVersion"], "0.1.0");
    assert_eq!(host.given("ADD")["cniVersion"], Value::Null);
}

#[rstest]
#[case::empty("", 6)]
#[case::binary("\u{0}\u{7f}", 6)]
#[case::array("[{}]", 6)]
#[case::twice("{\"name\":\"a\"}{}", 6)]
#[case::nameless("{}", 7)]
#[case::path("{\"name\":\"../../etc\"}", 7)]
#[case::version("{\"name\":\"a\",\"cniVersion\":{}}", 6)]
#[case::version_text("{\"name\":\"a\",\"cniVersion\":\"one\"}", 1)]
#[case::ipam("{\"name\":\"a\",\"ipam\":[]}", 999)]
#[case::places("{\"name\":\"a\",\"dataDir\":7}", 999)]
fn input_that_is_no_configuration(
    #[case] input: &str,
    #[case] code: u64,
    #[values("ADD", "DEL")] command: &str,
) {
    let host = Host::new();
    let said = run(host.command(command, "pod", "eth0"), input);
    assert_eq!(said.error().0, code, "{said:?}");
    assert!(!said.stderr.contains("panicked") && host.calls().is_empty());
}

#[test]
fn nobody_need_listen() {
    let host = Host::new();
    std::fs::remove_file(host.path("subnet.env")).unwrap();
    let mut command = Command::new("sh");
    // Nobody reads from this pipe any more when the program writes into it.
    command.args(["-c", "{ sleep 0.2; \"$0\"; echo $? > \"$1\"; } 2>&1 >&- | true"]).arg(program());
    command.arg(host.path("exit"));
    let said = run(host.said_to(command, "DEL", "pod", "eth0"), &host.conf("net").to_string());
    assert!(said.success);
    assert_eq!(std::fs::read_to_string(host.path("exit")).unwrap(), "0\n");
}

#[test]
fn plugins_are_not_looked_for_in_the_current_folder() {
    let host = Host::new();
    let mut command = host.command("ADD", "pod", "eth0");
    command.current_dir(host.path("bin")).env("CNI_PATH", "/no/such/folder:");
    let said = run(command, &host.conf("net").to_string());
    assert!(said.error().1.starts_with("failed to find plugin \"bridge\""), "{said:?}");
    assert!(host.calls().is_empty());
}

#[test]
fn variables() {
    let host = Host::new();
    let mut command = Command::new(program());
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "pod").env("CNI_PATH", "/");
    let refusal = (4, "required env variables [CNI_NETNS,CNI_IFNAME] missing");
    assert_eq!(run(command, "").error(), refusal);
    assert_eq!(
        host.run("UPDATE", "pod", "eth0", &host.conf("net")).error(),
        (4, "unknown CNI_COMMAND: UPDATE")
    );
    let said = host.run("ADD", "../pod", "eth0", &host.conf("net"));
    assert_eq!(
        (said.error(), &said.stdout["details"]),
        ((4, "invalid characters in containerID"), &json!("../pod"))
    );
}

/// A delegate would find the host's interface by the name of the pod's.
#[rstest]
fn the_host_is_no_container(#[values("ADD", "DEL")] name: &str) {
    let host = Host::new();
    let conf = host.conf("net").to_string();
    let own = |name| {
        let mut command = host.command(name, "pod", "eth0");
        command.env("CNI_NETNS", "/proc/self/ns/net");
        command
    };
    let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
    assert_eq!(run(own(name), &conf).error(), (8, msg));
    assert!(host.calls().is_empty());
    let mut allowed = own(name);
    allowed.env("CNI_NETNS_OVERRIDE", "True");
    run(allowed, &conf).result();
    assert_eq!(host.calls().len(), 1);
}
