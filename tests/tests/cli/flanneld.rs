//! `flanneld` takes stock flannel's flags.

use flannel_tests::binaries;
use flannel_tests::cluster::Member;
use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::Place;
use rstest::rstest;

use crate::{run, text};

#[rstest]
#[case::two_hyphens("--version")]
#[case::one_hyphen("-version")]
fn version(#[case] flag: &str) {
    let output = run("flanneld", &[flag]);
    assert_eq!(output.status.code(), Some(0));
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}

#[rstest]
#[case::unknown_flag(&["--frobnicate"], "--frobnicate")]
#[case::hook(&["--datapath-hook=everywhere"], "--datapath-hook")]
#[case::guard(&["-guard", "none"], "--guard")]
#[case::margin(&["-subnet-lease-renew-margin=1440"], "subnet-lease-renew-margin")]
fn bad_usage_names_the_flag(#[case] arguments: &[&str], #[case] flag: &str) {
    let output = run("flanneld", arguments);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{}", output.status);
    assert!(text(&output.stderr).contains(flag), "{}", text(&output.stderr));
}

#[test]
fn second_daemon_on_one_pin_directory_is_refused_and_the_first_goes_on() {
    let mut cluster =
        Cluster::start(&Plan { places: vec![Place::Near], ..Plan::new(r#"{"Type":"vxlan"}"#) }).unwrap();
    let settings = Settings {
        endpoint: cluster.etcd.url(),
        prefix: "/other/network".to_owned(),
        flags: vec![format!("--pin-dir={}", cluster.members[0].daemon.pin_dir().display())],
    };
    let host = &cluster.members[0].node.host;
    let error = Daemon::start_as(host, "second", settings).unwrap().wait_ready().unwrap_err();
    let said = format!("{error:#}");
    assert!(
        said.contains("exit status: 1") && said.contains("another flanneld uses the pin directory"),
        "{said}"
    );
    cluster.members[0].daemon.check_running().unwrap();
}

/// Runs `flanneld --check` on a host with its daemon's flags: its exit code, and what it prints.
fn check(cluster: &Cluster, member: &Member, flags: &[&str]) -> (Option<i32>, String) {
    let namespace = &member.node.host.namespace;
    let mut command = namespace.command(binaries::find("flanneld").unwrap()).unwrap();
    command.arg(format!("--etcd-endpoints={}", cluster.etcd.url())).arg(format!("--etcd-prefix={PREFIX}"));
    let output = command.args(["--check", "--iface=eth0", "--ip-masq"]).args(flags).output().unwrap();
    (output.status.code(), text(&output.stdout))
}

/// What is on a host that a daemon would change.
fn state(member: &Member) -> String {
    let run = |program: &str, arguments: &str| member.node.host.namespace.run(program, arguments).unwrap();
    let rules = run("iptables-save", "");
    let rules: Vec<&str> = rules.lines().filter(|line| line.starts_with("-A")).collect();
    format!(
        "{}{}{}{}{rules:?}{:?}",
        run("ip", "-oneline link show"),
        run("ip", "-oneline address show"),
        run("ip", "route show table all"),
        run("nft", "--stateless list tables"),
        flannel_datapath::pinned_programs(member.daemon.pin_dir()).unwrap().len(),
    )
}

#[test]
fn a_check_finds_what_a_start_depends_on_and_changes_nothing() {
    let plan = Plan { places: vec![Place::Near], ..Plan::new(r#"{"Type":"vxlan"}"#) };
    let mut cluster = Cluster::start(&plan).unwrap();
    let config = format!("{PREFIX}/config");
    let before = state(&cluster.members[0]);
    let member = &cluster.members[0];
    let (code, said) = check(&cluster, member, &[]);
    assert_eq!(code, Some(0), "{said}");
    for found in [
        "ok      privileges: ",
        "ok      configuration: vxlan over 10.5.0.0/16, hash ",
        "ok      interface: eth0, 192.168.77.11, MTU 1500",
        "ok      kernel: ",
        "ok      rules: iptables can be read",
    ] {
        assert!(said.contains(found), "{found}: {said}");
    }
    let (code, said) = check(&cluster, member, &["--iface=nothere"]);
    assert_eq!(code, Some(0), "another interface is there: {said}");

    for (text, flaw) in [
        (
            r#"{"Network":"10.5.0.0/16","Backend":{"Type":"gre"}}"#,
            "failed  configuration: unknown backend type: gre",
        ),
        (r#"{"Network":"10.5"#, "failed  configuration: the network configuration is not a JSON object"),
    ] {
        cluster.etcd.put(&config, text).unwrap();
        let (code, said) = check(&cluster, member, &[]);
        assert!(code == Some(1) && said.contains(flaw), "{said}");
        assert!(said.contains("failed  kernel, rules: not checked"), "{said}");
    }
    cluster.etcd.put(&config, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#).unwrap();
    let (code, said) = check(&cluster, member, &["--public-ip=198.51.100.7"]);
    assert!(code == Some(1) && said.contains("failed  interface: your PublicIP differs"), "{said}");
    assert_eq!(state(&cluster.members[0]), before);
    cluster.members[0].daemon.check_running().unwrap();

    let flag = "--etcd-endpoints=http://127.0.0.1:9";
    let (code, said) = check(&cluster, &cluster.members[0], &[flag]);
    assert!(
        code == Some(1) && said.contains("failed  configuration: etcd at http://127.0.0.1:9 did not"),
        "{said}"
    );
}
