//! Command lines as users write them.

mod environment;
mod kubernetes;
mod stock;
mod syntax;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use flannel_common::flow::Bypass;
use flannel_common::maps::Guard;
use flannel_datapath::metrics::PerPeer;
use flannel_datapath::{HookChoice, LogChoice, ProgramSettings};
use flannel_model::config::default_pin_dir;
use flannel_model::config::interface::InterfaceOptions;
use flannel_observe::Endpoints;
use flannel_registry::etcd::Password;
use rstest::rstest;
use tracing::Level;

use super::{Options, Refusal, parse_in};

/// Parses `line`, split at blanks, with `variables` in the environment.
fn parse_with(line: &str, variables: &[(&str, &str)]) -> Result<Options, Refusal> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let words = std::iter::once("flanneld").chain(line.split_whitespace()).map(OsString::from);
    parse_in(words, |name| variables.get(name).map(OsString::from))
}

fn parse(line: &str) -> Result<Options, Refusal> {
    parse_with(line, &[])
}

/// The refusal of `line`, which must end the process with `code`.
fn refused(line: &str, code: u8) -> String {
    let refusal = parse(line).unwrap_err();
    assert_eq!(refusal.code(), code, "{refusal}");
    refusal.to_string()
}

#[test]
fn nothing_given_means_the_defaults() {
    let options = parse("").unwrap();
    assert_eq!(options.etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
    assert_eq!(options.etcd.prefix, "/coreos.com/network");
    assert_eq!(options.interface, InterfaceOptions::default());
    assert_eq!(options.lease.ttl, Duration::from_secs(86_400));
    assert_eq!(options.lease.renew_margin, Duration::from_secs(3_600));
    assert_eq!(options.subnet_file, Path::new("/run/flannel/subnet.env"));
    assert_eq!(options.pin_dir, default_pin_dir("/coreos.com/network"));
    assert_eq!(options.hook, HookChoice::Auto);
    assert_eq!(options.program_settings, ProgramSettings { log: LogChoice::Off, counts: true });
    assert_eq!(options.guard, Guard::Strict);
    assert_eq!(options.bypass, Bypass::Flow);
    assert!(!options.copy_dscp);
    assert_eq!(options.pod_bridges, ["cni0", "docker0"]);
    assert_eq!(options.log_level, Level::INFO);
}

#[test]
fn everything_given_arrives() {
    let options = parse(
        "-etcd-endpoints https://a:1,b:2 -etcd-prefix /net -etcd-keyfile=/k -etcd-certfile=/c -etcd-cafile=/a \
         -etcd-username=u -etcd-password=p --iface eth1 --iface-regex ^10 --iface-can-reach 10.0.0.1 \
         --public-ip 192.0.2.1 --subnet-file /s --subnet-lease-renew-margin 5 --subnet-lease-ttl 1h30m \
         --pin-dir /pins --datapath-hook clsact --datapath-log warn --datapath-counters=false --guard peer \
         --pod-bridges cni1 --pod-bypass direct --copy-dscp -v=2",
    )
    .unwrap();
    assert_eq!(options.etcd.endpoints, ["https://a:1", "b:2"]);
    assert_eq!(options.etcd.prefix, "/net");
    assert_eq!(options.etcd.key_file.as_deref(), Some(Path::new("/k")));
    assert_eq!(options.etcd.cert_file.as_deref(), Some(Path::new("/c")));
    assert_eq!(options.etcd.ca_file.as_deref(), Some(Path::new("/a")));
    assert_eq!(options.etcd.username.as_deref(), Some("u"));
    assert_eq!(options.etcd.password, Some(Password::Literal("p".to_owned())));
    assert_eq!(options.interface.iface, ["eth1"]);
    assert_eq!(options.interface.iface_regex, ["^10"]);
    assert_eq!(options.interface.iface_can_reach, Some(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(options.interface.public, Ipv4Addr::new(192, 0, 2, 1).into());
    assert_eq!(options.subnet_file, Path::new("/s"));
    assert_eq!(options.lease.renew_margin, Duration::from_secs(300));
    assert_eq!(options.lease.ttl, Duration::from_secs(5_400));
    assert_eq!(options.pin_dir, Path::new("/pins"));
    assert_eq!(options.hook, HookChoice::Clsact);
    assert_eq!(options.program_settings, ProgramSettings { log: LogChoice::Warn, counts: false });
    assert_eq!(options.guard, Guard::Peer);
    assert_eq!(options.bypass, Bypass::Direct);
    assert!(options.copy_dscp);
    assert_eq!(options.pod_bridges, ["cni1"]);
    assert_eq!(options.log_level, Level::DEBUG);
}

#[test]
fn networks_have_pin_directories_of_their_own() {
    assert_ne!(parse("--etcd-prefix /a").unwrap().pin_dir, parse("--etcd-prefix /b").unwrap().pin_dir);
}

#[rstest]
fn a_margin_out_of_range_is_refused(#[values("0", "-5", "1440")] margin: &str) {
    let text = refused(&format!("--subnet-lease-renew-margin={margin}"), 1);
    let message = "Invalid subnet-lease-renew-margin option, out of acceptable range";
    assert!(text.contains(message) && text.contains("give 1 to 1439 minutes"), "{text}");
}

#[rstest]
#[case("1", 60)]
#[case("1439", 86_340)]
fn a_margin_in_range(#[case] margin: &str, #[case] seconds: u64) {
    let options = parse(&format!("--subnet-lease-renew-margin {margin}")).unwrap();
    assert_eq!(options.lease.renew_margin, Duration::from_secs(seconds));
}

#[rstest]
#[case::line_end("secret\n", Some("secret"))]
#[case::no_line_end("secret", Some("secret"))]
#[case::windows("secret\r\n", Some("secret"))]
#[case::blanks(" se cret \n", Some(" se cret "))]
#[case::empty("", None)]
#[case::empty_line("\nsecret", None)]
fn the_password_may_stand_in_a_file(#[case] content: &str, #[case] password: Option<&str>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    let options = parse(&format!("--etcd-username u --etcd-password-file {}", file.path().display()));
    match (options, password) {
        (Ok(options), Some(password)) => assert_eq!(options.etcd.password.unwrap().read().unwrap(), password),
        (Err(refusal), None) => assert!(refusal.to_string().contains("its first line is empty"), "{refusal}"),
        (outcome, _) => panic!("{outcome:?}"),
    }
}

#[test]
fn a_missing_password_file_is_named() {
    let text = refused("--etcd-password-file /nowhere/password", 1);
    assert!(text.contains("--etcd-password-file /nowhere/password: No such file"), "{text}");
}

#[rstest]
#[case::nowhere("", None, None)]
#[case::address_without_port("--healthz-ip=127.0.0.1", None, None)]
#[case::everywhere("--healthz-port=8081", Some("0.0.0.0:8081"), None)]
#[case::loopback("--healthz-ip=::1 --healthz-port=8081", Some("[::1]:8081"), None)]
#[case::metrics("--metrics-listen=127.0.0.1:9473", None, Some("127.0.0.1:9473"))]
fn where_health_and_metrics_are_shown(
    #[case] line: &str,
    #[case] health: Option<&str>,
    #[case] metrics: Option<&str>,
) {
    let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    let endpoints = Endpoints { health: address(health), metrics: address(metrics) };
    assert_eq!(parse(line).unwrap().endpoints, endpoints);
}

#[rstest]
#[case::by_itself("", PerPeer::WhileFew)]
#[case::auto("--metrics-per-peer=auto", PerPeer::WhileFew)]
#[case::bare("--metrics-per-peer", PerPeer::Always)]
#[case::on("--metrics-per-peer=true", PerPeer::Always)]
#[case::off("--metrics-per-peer=f", PerPeer::Never)]
fn series_of_each_peer_are_for_few_or_who_asks(#[case] line: &str, #[case] expected: PerPeer) {
    assert_eq!(parse(line).unwrap().metrics_per_peer, expected);
    assert!(parse("--metrics-per-peer=some").is_err());
}
