//! Command lines as users write them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use clap::Arg;
use flannel_common::maps::Guard;
use rstest::rstest;
use tracing::Level;

use super::flags::{command, env_name};
use super::{Options, Refusal, parse_in};
use crate::config::pin_dir::{DEFAULT_PREFIX, default_pin_dir};
use crate::datapath::HookChoice;

/// Every flag of stock flannel, with its default there.
const STOCK: [(&str, &str); 30] = [
    ("etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379"),
    ("etcd-prefix", "/coreos.com/network"),
    ("etcd-keyfile", ""),
    ("etcd-certfile", ""),
    ("etcd-cafile", ""),
    ("etcd-username", ""),
    ("etcd-password", ""),
    ("iface", ""),
    ("iface-regex", ""),
    ("iface-can-reach", ""),
    ("public-ip", ""),
    ("public-ipv6", ""),
    ("subnet-file", "/run/flannel/subnet.env"),
    ("subnet-lease-renew-margin", "60"),
    ("ip-masq", "false"),
    ("ip-masq-fully-random-disable", "false"),
    ("iptables-resync", "5"),
    ("iptables-forward-rules", "true"),
    ("ip-blackhole-route", "false"),
    ("healthz-ip", "0.0.0.0"),
    ("healthz-port", "0"),
    ("kube-subnet-mgr", "false"),
    ("kube-api-url", ""),
    ("kubeconfig-file", ""),
    ("kube-annotation-prefix", "flannel.alpha.coreos.com"),
    ("net-config-path", "/etc/kube-flannel/net-conf.json"),
    ("set-node-network-unavailable", "true"),
    ("v", "0"),
    ("vmodule", ""),
    ("log_backtrace_at", ":0"),
];

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

fn long_flags() -> Vec<String> {
    command().get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}

#[test]
fn every_flag_of_stock_flannel_can_be_given_its_default() {
    for (flag, default) in STOCK {
        for dashes in ["-", "--"] {
            parse(&format!("{dashes}{flag}={default}")).unwrap_or_else(|refusal| panic!("{flag}: {refusal}"));
        }
        parse_with("", &[(&env_name(flag), default)]).unwrap_or_else(|refusal| panic!("{flag}: {refusal}"));
    }
}

#[test]
fn defaults_are_those_of_stock_flannel() {
    for (flag, default) in STOCK {
        let command = command();
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
        let ours: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let stocks = if flag == "log_backtrace_at" { "" } else { default };
        assert_eq!(ours.concat(), stocks, "{flag}");
    }
}

#[test]
fn nothing_given_means_the_defaults() {
    let options = parse("").unwrap();
    assert_eq!(options.etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
    assert_eq!(options.etcd.prefix, "/coreos.com/network");
    assert_eq!(options.interface, crate::config::interface::InterfaceOptions::default());
    assert_eq!(options.lease.ttl, Duration::from_secs(86_400));
    assert_eq!(options.lease.renew_margin, Duration::from_secs(3_600));
    assert_eq!(options.subnet_file, Path::new("/run/flannel/subnet.env"));
    assert_eq!(options.pin_dir, default_pin_dir(DEFAULT_PREFIX));
    assert_eq!(options.hook, HookChoice::Auto);
    assert_eq!(options.guard, Guard::Strict);
    assert_eq!(options.pod_bridges, ["cni0", "docker0"]);
    assert_eq!(options.log_level, Level::INFO);
}

#[test]
fn everything_given_arrives() {
    let options = parse(
        "-etcd-endpoints https://a:1,b:2 -etcd-prefix /net -etcd-keyfile=/k -etcd-certfile=/c -etcd-cafile=/a \
         -etcd-username=u -etcd-password=p --iface eth1 --iface-regex ^10 --iface-can-reach 10.0.0.1 \
         --public-ip 192.0.2.1 --subnet-file /s --subnet-lease-renew-margin 5 --subnet-lease-ttl 1h30m \
         --pin-dir /pins --datapath-hook clsact --guard peer --pod-bridges cni1 -v=2",
    )
    .unwrap();
    assert_eq!(options.etcd.endpoints, ["https://a:1", "b:2"]);
    assert_eq!(options.etcd.prefix, "/net");
    assert_eq!(options.etcd.key_file.as_deref(), Some(Path::new("/k")));
    assert_eq!(options.etcd.cert_file.as_deref(), Some(Path::new("/c")));
    assert_eq!(options.etcd.ca_file.as_deref(), Some(Path::new("/a")));
    assert_eq!(options.etcd.username.as_deref(), Some("u"));
    assert_eq!(options.etcd.password.as_deref(), Some("p"));
    assert_eq!(options.interface.iface, ["eth1"]);
    assert_eq!(options.interface.iface_regex, ["^10"]);
    assert_eq!(options.interface.iface_can_reach, Some(IpAddr::from([10, 0, 0, 1])));
    assert_eq!(options.interface.public_ip, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(options.subnet_file, Path::new("/s"));
    assert_eq!(options.lease.renew_margin, Duration::from_secs(300));
    assert_eq!(options.lease.ttl, Duration::from_secs(5_400));
    assert_eq!(options.pin_dir, Path::new("/pins"));
    assert_eq!(options.hook, HookChoice::Clsact);
    assert_eq!(options.guard, Guard::Peer);
    assert_eq!(options.pod_bridges, ["cni1"]);
    assert_eq!(options.log_level, Level::DEBUG);
}

#[test]
fn networks_have_pin_directories_of_their_own() {
    assert_ne!(parse("--etcd-prefix /a").unwrap().pin_dir, parse("--etcd-prefix /b").unwrap().pin_dir);
}

#[rstest]
#[case::one_dash("-iface=eth1", &["eth1"])]
#[case::two_dashes("--iface=eth1", &["eth1"])]
#[case::next_word("-iface eth1", &["eth1"])]
#[case::next_word_two_dashes("--iface eth1", &["eth1"])]
#[case::repeated("-iface eth1 --iface=eth0 -iface 192.0.2.1", &["eth1", "eth0", "192.0.2.1"])]
#[case::value_with_dash("--iface -x", &["-x"])]
#[case::value_with_dashes("--iface --iface", &["--iface"])]
#[case::value_with_sign("--iface=a=b", &["a=b"])]
#[case::comma_is_no_list("--iface=a,b", &["a,b"])]
#[case::empty("--iface=", &[])]
#[case::end("--iface eth1 --", &["eth1"])]
fn go_syntax(#[case] line: &str, #[case] iface: &[&str]) {
    assert_eq!(parse(line).unwrap().interface.iface, iface);
}

#[rstest]
#[case::alone("--iptables-forward-rules", true)]
#[case::one_dash("-iptables-forward-rules", true)]
#[case::on("-iptables-forward-rules=true", true)]
#[case::off("--iptables-forward-rules=false", false)]
#[case::letter("--iptables-forward-rules=F", false)]
#[case::last_wins("--iptables-forward-rules=false --iptables-forward-rules", true)]
#[case::before_another("--iptables-forward-rules=0 --iface eth1", false)]
fn switches(#[case] line: &str, #[case] warned: bool) {
    let warnings = parse(line).unwrap().warnings;
    let warning = "--iptables-forward-rules is not served yet: ";
    assert_eq!(warnings.iter().any(|text| text.starts_with(warning)), warned, "{warnings:?}");
}

#[rstest]
#[case::equals("-v=4")]
#[case::next_word("-v 4")]
#[case::two_dashes("--v=4")]
#[case::last_wins("-v=1 -v 4")]
fn verbosity(#[case] line: &str) {
    assert_eq!(parse(line).unwrap().log_level, Level::TRACE);
}

#[test]
fn the_last_of_several_wins_even_when_it_is_empty() {
    assert_eq!(parse("--etcd-prefix /a --etcd-prefix /b").unwrap().etcd.prefix, "/b");
    assert_eq!(parse("--public-ip 192.0.2.1 --public-ip=").unwrap().interface.public_ip, None);
}

#[rstest]
#[case::word("eth1", "unexpected word 'eth1'")]
#[case::behind_switch(
    "--ip-masq false",
    "'false': --ip-masq takes its value behind an equals sign: --ip-masq=false"
)]
#[case::behind_end("-- --iface", "unexpected word '--iface'")]
#[case::dash("-", "unexpected word '-'")]
#[case::three_dashes("---iface=eth1", "bad flag syntax: ---iface=eth1")]
#[case::no_name("-=eth1", "bad flag syntax: -=eth1")]
#[case::unknown("--ifase=eth1", "'--ifase'")]
#[case::suggestion("-ifase eth1", "a similar argument exists: '--iface'")]
#[case::behind_unknown("--nonsense --ip-masq", "'--nonsense'")]
#[case::joined_level("-v4", "'--v4'")]
#[case::no_value("--iface", "a value is required for '--iface")]
#[case::switch("--ip-masq=yes", "invalid value 'yes' for '--ip-masq[=<BOOL>]': give true or false")]
#[case::empty_switch("--ip-masq=", "'--ip-masq[=<BOOL>]': give true or false")]
#[case::address("--public-ip=host", "invalid value 'host' for '--public-ip <ADDRESS>'")]
#[case::port("--healthz-port=65536", "65536")]
#[case::margin("--subnet-lease-renew-margin=1h", "invalid value '1h'")]
#[case::ttl("--subnet-lease-ttl=86400", "such as 24h")]
#[case::resync("--iptables-resync=0", "0 is not in 1..")]
#[case::hook("--datapath-hook=netkit", "[possible values: auto, xdp, tcx, clsact]")]
#[case::guard("--guard=on", "[possible values: strict, peer, off]")]
#[case::bridge("--pod-bridges=a/b", "'a/b' is no name of an interface")]
#[case::passwords("--etcd-password=p --etcd-password-file=/f", "cannot be used with")]
fn bad_usage(#[case] line: &str, #[case] message: &str) {
    let text = refused(line, 2);
    assert!(text.contains(message), "{text}");
}

#[rstest]
#[case("etcd-endpoint", "give --etcd-endpoints")]
#[case("listen", "there is no server")]
#[case("remote", "there is no server")]
#[case("remote-keyfile", "there is no server")]
#[case("remote-certfile", "there is no server")]
#[case("remote-cafile", "there is no server")]
#[case("networks", "one daemon serves one network")]
#[case("watch-networks", "one daemon serves one network")]
#[case("subnet-dir", "one daemon serves one network")]
fn a_removed_flag_tells_its_successor(#[case] flag: &str, #[case] message: &str) {
    for line in [format!("-{flag}=x"), format!("--{flag} x")] {
        let text = refused(&line, 2);
        assert!(text.contains(&format!("--{flag} is gone")) && text.contains(message), "{text}");
    }
    assert!(!long_flags().iter().any(|known| known == flag), "{flag} is back");
}

#[rstest]
#[case("kube-subnet-mgr", "true")]
#[case("kube-api-url", "https://10.96.0.1")]
#[case("kubeconfig-file", "/etc/kubeconfig")]
#[case("kube-annotation-prefix", "example.com")]
#[case("net-config-path", "/etc/net-conf.json")]
#[case("public-ipv6", "2001:db8::1")]
#[case("ip-masq", "true")]
#[case("ip-blackhole-route", "1")]
#[case("healthz-ip", "127.0.0.1")]
#[case("healthz-port", "8081")]
#[case("vmodule", "main=2")]
#[case("log_backtrace_at", "main.go:1")]
fn what_is_not_served_is_refused(#[case] flag: &str, #[case] value: &str) {
    let text = refused(&format!("--{flag}={value}"), 1);
    assert!(text.contains(&format!("--{flag} is not served yet: ")), "{text}");
    let name = env_name(flag);
    let refusal = parse_with("", &[(&name, value)]).unwrap_err().to_string();
    assert!(refusal.contains(&format!("{name} is not served yet: ")), "{refusal}");
    let help = command().render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains(&format!("[not served yet] [env: {name}]")), "{help}");
}

#[test]
fn all_that_is_not_served_is_told_at_once() {
    let text = refused("--ip-masq --kube-subnet-mgr --healthz-port=8081", 1);
    assert_eq!(text.matches(" is not served yet: ").count(), 3, "{text}");
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

#[test]
fn variables_stand_for_flags() {
    let options = parse_with(
        "--etcd-prefix /line",
        &[
            ("FLANNELD_ETCD_PREFIX", "/variable"),
            ("FLANNELD_ETCD_ENDPOINTS", "http://a:1,http://b:1"),
            ("FLANNELD_IFACE", "eth0,eth1"),
            ("FLANNELD_IPTABLES_FORWARD_RULES", "False"),
            ("FLANNELD_V", "4"),
            ("FLANNELD_PIN_DIR", "/pins"),
            ("FLANNELD_SUBNET_FILE", ""),
            ("FLANNELD_NONSENSE", "x"),
        ],
    )
    .unwrap();
    assert_eq!(options.etcd.prefix, "/line");
    assert_eq!(options.etcd.endpoints.len(), 2);
    assert_eq!(options.interface.iface, ["eth0,eth1"], "a variable is one value");
    assert!(options.warnings.is_empty(), "{:?}", options.warnings);
    assert_eq!(options.log_level, Level::TRACE);
    assert_eq!(options.pin_dir, Path::new("/pins"));
    assert_eq!(options.subnet_file, Path::new("/run/flannel/subnet.env"));
}

#[rstest]
#[case::repeatable("--iface eth1", "FLANNELD_IFACE", "eth0")]
#[case::empty("--iface eth1 --public-ip=", "FLANNELD_PUBLIC_IP", "192.0.2.1")]
#[case::switch("--iface eth1 --ip-masq=false", "FLANNELD_IP_MASQ", "true")]
#[case::wrong_value("--iface eth1 --healthz-port 0", "FLANNELD_HEALTHZ_PORT", "x")]
fn the_command_line_wins(#[case] line: &str, #[case] name: &str, #[case] value: &str) {
    let interface = parse_with(line, &[(name, value)]).unwrap().interface;
    assert_eq!((interface.iface.as_slice(), interface.public_ip), (&["eth1".to_owned()][..], None));
}

#[rstest]
#[case::value("", "FLANNELD_PUBLIC_IP", "host", "--public-ip")]
#[case::switch("", "FLANNELD_IP_MASQ", "yes", "--ip-masq")]
#[case::conflict("--etcd-password-file /f", "FLANNELD_ETCD_PASSWORD", "p", "--etcd-password")]
fn a_wrong_variable_is_named(
    #[case] line: &str,
    #[case] name: &str,
    #[case] value: &str,
    #[case] flag: &str,
) {
    let refusal = parse_with(line, &[(name, value)]).unwrap_err();
    assert_eq!(refusal.code(), 2);
    let note = format!("note: {flag} is set by the variable {name}");
    assert!(refusal.to_string().contains(&note), "{refusal}");
}

#[test]
fn a_variable_is_not_named_for_the_fault_of_another_flag() {
    let refusal = parse_with("--public-ip=host", &[("FLANNELD_ETCD_PREFIX", "/a")]).unwrap_err();
    assert!(!refusal.to_string().contains("note:"), "{refusal}");
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
        (Ok(options), Some(_)) => assert_eq!(options.etcd.password.as_deref(), password),
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
fn the_version_is_an_answer(#[values("-version", "--version", "--version=1 --ip-masq")] line: &str) {
    assert_eq!(refused(line, 0), concat!("v", env!("CARGO_PKG_VERSION")));
}

#[rstest]
fn help_is_an_answer(#[values("-h", "--h", "-help", "--help", "--iface eth1 -h eth2")] line: &str) {
    let text = refused(line, 0);
    for heading in ["etcd", "Interface", "Lease", "Datapath", "Rules", "Health", "Kubernetes", "Logging"] {
        assert!(text.contains(&format!("\n{heading}:\n")), "no heading {heading}: {text}");
    }
    assert!(text.starts_with("flannel whose datapath is eBPF"), "{text}");
}

#[test]
fn no_version_is_asked_for_by_false() {
    parse("--version=false").unwrap();
}

#[test]
fn every_flag_has_help_that_names_its_variable() {
    for arg in command().get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let flag = arg.get_long().unwrap();
        let (text, notes) = help.split_once(" [").unwrap_or_default();
        assert!(text.len() > 10, "{flag}: {help}");
        assert!(notes.ends_with(&format!("env: {}]", env_name(flag))), "{flag}: {help}");
    }
}
