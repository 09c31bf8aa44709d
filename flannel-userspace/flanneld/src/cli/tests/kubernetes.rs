//! The settings of `--kube-subnet-mgr`.

use std::path::Path;

use flannel_kubernetes::NodeName;
use rstest::rstest;

use super::{parse_with, refused};

const NODE: (&str, &str) = ("NODE_NAME", "worker-1");

#[test]
fn without_the_flag_leases_are_in_etcd() {
    assert!(parse_with("", &[NODE]).unwrap().kubernetes.is_none());
    for flag in [
        "--kube-api-url=https://10.96.0.1",
        "--kubeconfig-file=/f",
        "--kube-annotation-prefix=example.com",
        "--net-config-path=/f",
    ] {
        let text = refused(flag, 1);
        assert!(text.contains(" has a meaning with --kube-subnet-mgr only"), "{text}");
    }
}

#[test]
fn as_in_the_manifest() {
    let pod = [
        ("POD_NAME", "kube-flannel-ds-x7"),
        ("POD_NAMESPACE", "kube-flannel"),
        ("EVENT_QUEUE_DEPTH", "5000"),
        ("CONT_WHEN_CACHE_NOT_READY", "false"),
    ];
    let options = parse_with("--ip-masq --kube-subnet-mgr --healthz-port=8081", &pod).unwrap();
    let kubernetes = options.kubernetes.unwrap();
    let node = NodeName::OfPod { namespace: "kube-flannel".to_owned(), pod: "kube-flannel-ds-x7".to_owned() };
    assert_eq!(kubernetes.node, node);
    assert_eq!(kubernetes.net_conf, Path::new("/etc/kube-flannel/net-conf.json"));
    assert_eq!(kubernetes.prefix.to_string(), "flannel.alpha.coreos.com/");
    assert!(kubernetes.sets_condition);
    assert_eq!((kubernetes.access.url, kubernetes.access.kubeconfig), (None, None));
}

#[test]
fn the_name_of_the_node_goes_before_that_of_the_pod() {
    let variables = [NODE, ("POD_NAME", "p"), ("POD_NAMESPACE", "n")];
    let line = "--kube-subnet-mgr --set-node-network-unavailable=false --kubeconfig-file /k --kube-api-url https://a:6443";
    let kubernetes = parse_with(line, &variables).unwrap().kubernetes.unwrap();
    assert_eq!(kubernetes.node, NodeName::Given("worker-1".to_owned()));
    assert!(!kubernetes.sets_condition);
    assert_eq!(kubernetes.access.url.as_deref(), Some("https://a:6443"));
    assert_eq!(kubernetes.access.kubeconfig.as_deref(), Some(Path::new("/k")));
}

#[rstest]
#[case::no_node(&[("POD_NAME", "p"), ("POD_NAMESPACE", "")], "", "env variables POD_NAME and POD_NAMESPACE must be set")]
#[case::queue(&[NODE, ("EVENT_QUEUE_DEPTH", "many")], "", "env EVENT_QUEUE_DEPTH=many format error: ")]
#[case::slashes(&[NODE], " --kube-annotation-prefix=a.b/c/d", "subnet/kube: prefix can contain at most single slash")]
#[case::prefix(&[NODE], " --kube-annotation-prefix=flannel", "subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*")]
fn what_stock_flannel_refuses(#[case] variables: &[(&str, &str)], #[case] flags: &str, #[case] text: &str) {
    let refusal = parse_with(&format!("--kube-subnet-mgr{flags}"), variables).unwrap_err();
    assert_eq!(refusal.code(), 1);
    let expected = format!("error: Failed to create SubnetManager: {text}");
    assert!(refusal.to_string().starts_with(&expected), "{refusal}");
}
