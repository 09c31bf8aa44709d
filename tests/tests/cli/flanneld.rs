//! `flanneld` takes stock flannel's flags.

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::daemon::{Daemon, Settings};
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
