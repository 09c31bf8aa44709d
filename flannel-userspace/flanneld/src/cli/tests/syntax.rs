//! How words are parsed, and the answers.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use flannel_model::family::Addresses;
use rstest::rstest;
use tracing::Level;

use super::{parse, parse_in, parse_with, refused};
use crate::cli::RuleOptions;
use crate::cli::command::command;
use crate::cli::words::env_name;

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

#[test]
fn a_path_need_not_be_text() {
    let path = OsStr::from_bytes(b"/run/\xff.env");
    let equals = [OsStr::new("flanneld"), OsStr::from_bytes(b"-subnet-file=/run/\xff.env")];
    let next_word = [OsStr::new("flanneld"), OsStr::new("-subnet-file"), path];
    for line in [&equals[..], &next_word[..]] {
        let options = parse_in(line.iter().map(OsString::from), |_| None).unwrap();
        assert_eq!(options.subnet_file, path);
    }
}

#[rstest]
#[case::alone("--iptables-forward-rules", true)]
#[case::one_dash("-iptables-forward-rules", true)]
#[case::on("-iptables-forward-rules=true", true)]
#[case::off("--iptables-forward-rules=false", false)]
#[case::letter("--iptables-forward-rules=F", false)]
#[case::last_wins("--iptables-forward-rules=false --iptables-forward-rules", true)]
#[case::before_another("--iptables-forward-rules=0 --iface eth1", false)]
fn switches(#[case] line: &str, #[case] is_on: bool) {
    assert_eq!(parse(line).unwrap().rules.forward, is_on);
}

#[test]
fn rules_are_stock_flannels_unless_said_otherwise() {
    let expected = RuleOptions {
        masquerade: false,
        fully_random: true,
        forward: true,
        resync: Duration::from_secs(5),
        blackhole: false,
    };
    assert_eq!(parse("").unwrap().rules, expected);
    let line = "--ip-masq --ip-masq-fully-random-disable --iptables-resync=9 --ip-blackhole-route";
    let expected = RuleOptions {
        masquerade: true,
        fully_random: false,
        resync: Duration::from_secs(9),
        blackhole: true,
        ..expected
    };
    assert_eq!(parse(line).unwrap().rules, expected);
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
    assert_eq!(parse("--public-ip 192.0.2.1 --public-ip=").unwrap().interface.public, Addresses::NONE);
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
#[case::hook("--datapath-hook=netkit", "[possible values: auto, xdp, xdp-generic, tcx, clsact]")]
#[case::guard("--guard=on", "[possible values: strict, peer, off]")]
#[case::bridge("--pod-bridges=a/b", "'a/b' is no name of an interface")]
#[case::long_dash("\u{2014}iface eth0", "begins with the dash U+2014")]
#[case::invisible_in_a_name(
    "--iface\u{200b}=eth0",
    "the invisible character U+200B, behind its first 5 characters"
)]
#[case::invisible_in_a_value("--iface=eth0\u{200b}", "--iface has the invisible character U+200B")]
#[case::byte_order_mark("--etcd-prefix=\u{feff}/x", "the invisible character U+FEFF, behind its first 0")]
#[case::quotes("--iface=\"eth0\"", "--iface is in quotes that nothing has removed")]
#[case::glog(
    "--logtostderr=true",
    "--logtostderr was removed from flannel: the log always goes to standard error"
)]
#[case::glog_file("-log_dir=/var/log", "--log_dir was removed from flannel: there are no log files")]
#[case::glog_threshold("--stderrthreshold=INFO", "was removed from flannel")]
#[case::passwords("--etcd-password=p --etcd-password-file=/f", "cannot be used with")]
fn bad_usage(#[case] line: &str, #[case] message: &str) {
    let text = refused(line, 2);
    assert!(text.contains(message), "{text}");
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
    assert!(text.starts_with("flannel with an eBPF datapath"), "{text}");
}

#[test]
fn no_version_is_asked_for_by_false() {
    parse("--version=false").unwrap();
}

#[test]
fn every_flag_has_help_that_names_its_variable() {
    for arg in command().get_arguments() {
        let flag = arg.get_long().unwrap();
        let Some(variable) = env_name(flag) else { continue };
        for help in [arg.get_help(), arg.get_long_help()] {
            let help = help.unwrap().to_string();
            let (text, notes) = help.split_once('[').unwrap();
            assert!(text.len() > 10, "{flag}: {help}");
            assert!(notes.ends_with(&format!("env: {variable}]")), "{flag}: {help}");
        }
    }
}

#[rstest]
#[case::manual("--man", ".TH flanneld 1")]
#[case::bash("--completions bash", "complete -F _flanneld")]
#[case::zsh("-completions=zsh --ip-masq", "#compdef flanneld")]
fn what_is_printed_instead_of_running(#[case] line: &str, #[case] part: &str) {
    let answer = refused(line, 0);
    assert!(answer.contains(part), "{answer}");
}

#[test]
fn no_variable_asks_for_a_page() {
    parse_with("", &[("FLANNELD_MAN", "true"), ("FLANNELD_COMPLETIONS", "bash")]).unwrap();
}
