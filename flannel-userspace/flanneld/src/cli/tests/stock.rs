//! Every flag stock flannel has or had.

use rstest::rstest;

use super::{parse, parse_with, refused};
use crate::cli::command::command;
use crate::cli::words::env_name;

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

#[test]
fn every_flag_of_stock_flannel_can_be_given_its_default() {
    for (flag, default) in STOCK {
        for dashes in ["-", "--"] {
            parse(&format!("{dashes}{flag}={default}")).unwrap_or_else(|refusal| panic!("{flag}: {refusal}"));
        }
        let variable = env_name(flag).unwrap();
        parse_with("", &[(&variable, default)]).unwrap_or_else(|refusal| panic!("{flag}: {refusal}"));
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
        assert!(
            text.contains(&format!("--{flag} was removed from flannel")) && text.contains(message),
            "{text}"
        );
    }
    assert!(command().get_arguments().all(|arg| arg.get_long() != Some(flag)), "{flag} is back");
}

#[rstest]
#[case("public-ipv6", "2001:db8::1")]
#[case("vmodule", "main=2")]
#[case("log_backtrace_at", "main.go:1")]
fn what_is_not_served_is_refused(#[case] flag: &str, #[case] value: &str) {
    let text = refused(&format!("--{flag}={value}"), 1);
    assert!(text.contains(&format!("--{flag} is not served yet: ")), "{text}");
    let name = env_name(flag).unwrap();
    let refusal = parse_with("", &[(&name, value)]).unwrap_err().to_string();
    assert!(refusal.contains(&format!("{name} is not served yet: ")), "{refusal}");
    let help = command().render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains(&format!("[not served yet] [env: {name}]")), "{help}");
}

#[test]
fn all_that_is_not_served_is_told_at_once() {
    let text = refused("--public-ipv6=fd00::1 --vmodule=main=2", 1);
    assert_eq!(text.matches(" is not served yet: ").count(), 2, "{text}");
}
