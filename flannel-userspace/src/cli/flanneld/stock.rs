//! What stock flannel has and this daemon has not: flags of earlier versions, and flags not served yet.

use super::flags::{ANNOTATION_PREFIX, Flags, NET_CONFIG_PATH};
use super::refusal::Refusal;
use super::words::Settings;

/// Flags that flannel dropped before this daemon came, and what to use instead.
const REMOVED: [(&str, &str); 9] = [
    ("etcd-endpoint", "give --etcd-endpoints"),
    ("listen", NO_SERVER),
    ("remote", NO_SERVER),
    ("remote-keyfile", NO_SERVER),
    ("remote-certfile", NO_SERVER),
    ("remote-cafile", NO_SERVER),
    ("networks", ONE_EACH),
    ("watch-networks", ONE_EACH),
    ("subnet-dir", ONE_EACH),
];

const NO_SERVER: &str = "there is no server between daemons and etcd any more: give --etcd-endpoints, \
                         --etcd-keyfile, --etcd-certfile and --etcd-cafile to every daemon";
const ONE_EACH: &str =
    "one daemon serves one network: run one for each, with its own --etcd-prefix and --subnet-file";

/// Refuses a flag of an earlier flannel.
pub(super) fn removed(flag: &str) -> Option<Refusal> {
    let (_, instead) = REMOVED.iter().find(|(removed, _)| *removed == flag)?;
    Some(Refusal::usage(format!("--{flag} was removed from flannel: {instead}")))
}

/// A flag of today's stock flannel that is read, and cannot be obeyed yet.
struct NotServed {
    flag: &'static str,
    /// Whether more than the default is asked for.
    asked: fn(&Flags) -> bool,
    consequence: Consequence,
    /// What to do about it.
    remedy: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Consequence {
    /// The daemon does not start: it would not do what it is told.
    Refusal,
    /// The daemon starts and warns: stock flannel does it unasked.
    Warning,
}

/// Everything not served yet. An entry goes when its flag does something.
const NOT_SERVED: [NotServed; 11] = {
    const fn refused(flag: &'static str, asked: fn(&Flags) -> bool, remedy: &'static str) -> NotServed {
        NotServed { flag, asked, consequence: Consequence::Refusal, remedy }
    }
    const NO_KUBERNETES: &str = "it has a meaning with --kube-subnet-mgr only; leave it out";
    const NO_KLOG: &str = "leave it out; -v makes the whole log more verbose";
    [
        refused(
            "kube-subnet-mgr",
            |flags| flags.kubernetes.kube_subnet_mgr.is_on(),
            "leases are kept in etcd; leave it out and give --etcd-endpoints, or run stock flannel on every node",
        ),
        refused("kube-api-url", |flags| flags.kubernetes.kube_api_url.is_some(), NO_KUBERNETES),
        refused("kubeconfig-file", |flags| flags.kubernetes.kubeconfig_file.is_some(), NO_KUBERNETES),
        refused(
            "kube-annotation-prefix",
            |flags| flags.kubernetes.kube_annotation_prefix != ANNOTATION_PREFIX,
            NO_KUBERNETES,
        ),
        refused(
            "net-config-path",
            |flags| flags.kubernetes.net_config_path.as_os_str() != NET_CONFIG_PATH,
            "the network's configuration stands in etcd, at the key config below --etcd-prefix; leave it out",
        ),
        refused("public-ipv6", |flags| flags.interface.public_ipv6.is_some(), "IPv4 is; leave it out"),
        refused(
            "ip-masq",
            |flags| flags.rules.ip_masq.is_on(),
            "leave it out, and let the container runtime or a rule of your own masquerade",
        ),
        refused(
            "ip-blackhole-route",
            |flags| flags.rules.ip_blackhole_route.is_on(),
            "leave it out, or add the blackhole route of the subnet yourself",
        ),
        NotServed {
            flag: "iptables-forward-rules",
            asked: |flags| flags.rules.iptables_forward_rules.is_on(),
            consequence: Consequence::Warning,
            remedy: "no rule is written; where the FORWARD chain drops by default, accept packets from and to \
                     the network yourself; --iptables-forward-rules=false ends this warning",
        },
        refused("vmodule", |flags| flags.logging.vmodule.is_some(), NO_KLOG),
        refused(
            "log_backtrace_at",
            |flags| flags.logging.log_backtrace_at.as_deref().is_some_and(|at| at != ":0"),
            NO_KLOG,
        ),
    ]
};

/// Whether the help should say so.
pub(super) fn is_served(flag: &str) -> bool {
    NOT_SERVED.iter().all(|entry| entry.flag != flag)
}

/// Refuses what cannot be obeyed, all of it at once; returns what the user is to be warned of.
pub(super) fn check(flags: &Flags, settings: &Settings) -> Result<Vec<String>, Refusal> {
    let told = |consequence| {
        let entries = NOT_SERVED.iter().filter(move |entry| entry.consequence == consequence);
        let asked = entries.filter(|entry| (entry.asked)(flags));
        asked
            .map(|entry| format!("{} is not served yet: {}", settings.written(entry.flag), entry.remedy))
            .collect::<Vec<_>>()
    };
    let refused = told(Consequence::Refusal);
    if refused.is_empty() {
        Ok(told(Consequence::Warning))
    } else {
        Err(Refusal::value(refused.join("\nerror: ")))
    }
}
