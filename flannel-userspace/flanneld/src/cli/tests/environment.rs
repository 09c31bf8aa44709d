//! Variables in the place of flags.

use std::path::Path;

use flannel_model::family::Addresses;
use rstest::rstest;
use tracing::Level;

use super::parse_with;

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
            ("FLANNELD_COPY_DSCP", "true"),
            ("FLANNELD_SUBNET_FILE", ""),
            ("FLANNELD_NONSENSE", "x"),
        ],
    )
    .unwrap();
    assert_eq!(options.etcd.prefix, "/line");
    assert_eq!(options.etcd.endpoints.len(), 2);
    assert_eq!(options.interface.iface, ["eth0,eth1"], "a variable is one value");
    assert!(!options.rules.forward);
    assert!(options.copy_dscp);
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
    assert_eq!((interface.iface.as_slice(), interface.public), (&["eth1".to_owned()][..], Addresses::NONE));
}

#[rstest]
#[case::windows("http://a:1\r", "a carriage return, as files of Windows have")]
#[case::quotes("\"http://a:1\"", "is in quotes that nothing has removed: leave them out")]
#[case::blank("http://a:1,\u{a0}http://b:1", "the invisible character U+00A0, behind its first 11")]
fn what_nobody_sees_in_a_variable_is_told(#[case] value: &str, #[case] message: &str) {
    let refusal = parse_with("", &[("FLANNELD_ETCD_ENDPOINTS", value)]).unwrap_err();
    assert_eq!(refusal.code(), 2);
    let text = refusal.to_string();
    assert!(text.contains("FLANNELD_ETCD_ENDPOINTS") && text.contains(message), "{text}");
    parse_with("", &[("FLANNELD_ETCD_PASSWORD", value)]).unwrap();
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

#[test]
fn no_variable_asks_for_the_version() {
    parse_with("", &[("FLANNELD_VERSION", "1")]).unwrap();
}
