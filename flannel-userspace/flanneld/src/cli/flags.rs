//! Every flag, with its type, default and help.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use clap_complete::Shell;
use flannel_datapath::{HookChoice, LogChoice};
use flannel_model::config::place::DEFAULT_ETCD_PREFIX;

use super::values::{
    BypassChoice, GuardChoice, Interfaces, LogFormat, PerPeerChoice, Switch, lease_ttl, listen_address,
    listen_ip, pause,
};

/// Default of `--kube-annotation-prefix`.
pub(super) const ANNOTATION_PREFIX: &str = "flannel.alpha.coreos.com";
/// Default of `--net-config-path`.
pub(super) const NET_CONFIG_PATH: &str = "/etc/kube-flannel/net-conf.json";

/// flannel with an eBPF datapath: leases a subnet in etcd, or from Kubernetes, and forwards packets between pods and other hosts.
///
/// Flags are written -flag or --flag; a value follows behind a space or an equals sign, that of a BOOL only
/// behind an equals sign. Each can be given as a variable instead; the command line wins, and an empty
/// variable is ignored.
///
/// Exit codes: 0 done, 1 the daemon failed and says why, 2 bad usage.
#[derive(Parser)]
#[command(name = "flanneld", disable_version_flag = true, max_term_width = 110)]
pub(super) struct Flags {
    /// Print the version.
    #[arg(long, default_value = "false")]
    pub(super) version: Switch,
    /// Print the manual page.
    #[arg(long, default_value = "false")]
    pub(super) man: Switch,
    /// Check the flags, the network's configuration in etcd, the interface, whether the kernel takes the programs, and the
    /// tools for rules; print what was found, and change nothing. Exit code 0 if a daemon with these flags could start.
    #[arg(long, default_value = "false")]
    pub(super) check: Switch,
    /// Print completions for a shell.
    #[arg(long, value_enum, value_name = "SHELL")]
    pub(super) completions: Option<Shell>,
    #[command(flatten)]
    pub(super) etcd: EtcdFlags,
    #[command(flatten)]
    pub(super) interface: InterfaceFlags,
    #[command(flatten)]
    pub(super) lease: LeaseFlags,
    #[command(flatten)]
    pub(super) datapath: DatapathFlags,
    #[command(flatten)]
    pub(super) rules: RuleFlags,
    #[command(flatten)]
    pub(super) cloud: CloudFlags,
    #[command(flatten)]
    pub(super) health: HealthFlags,
    #[command(flatten)]
    pub(super) kubernetes: KubernetesFlags,
    #[command(flatten)]
    pub(super) logging: LoggingFlags,
}

#[derive(Args)]
#[command(next_help_heading = "etcd")]
pub(super) struct EtcdFlags {
    /// Client URLs of etcd, separated by commas, in the order in which they are tried.
    #[arg(long, default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379", value_name = "URLS")]
    pub(super) etcd_endpoints: String,
    /// Prefix of every key of this network; one daemon serves one network.
    #[arg(long, default_value = DEFAULT_ETCD_PREFIX, value_name = "PREFIX")]
    pub(super) etcd_prefix: String,
    /// Private key of the client certificate, a PEM file.
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_keyfile: Option<PathBuf>,
    /// Client certificate for etcd, a PEM file.
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_certfile: Option<PathBuf>,
    /// Authorities that may have signed etcd's certificate, a PEM file [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_cafile: Option<PathBuf>,
    /// User of etcd's access control.
    #[arg(long, value_name = "NAME")]
    pub(super) etcd_username: Option<String>,
    /// Password of that user. Everybody on this host sees it in the list of processes: prefer the
    /// variable or --etcd-password-file.
    #[arg(long, value_name = "PASSWORD", conflicts_with = "etcd_password_file")]
    pub(super) etcd_password: Option<String>,
    /// File whose first line is the password of that user.
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_password_file: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Interface")]
pub(super) struct InterfaceFlags {
    /// Interface that carries the tunnel, by name or address; repeat it for others to try in this order.
    /// Without --iface, --iface-regex and --iface-can-reach it is that of the default route.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub(super) iface: Vec<String>,
    /// Regular expression for that interface, tried after every --iface, against addresses first, then
    /// against names; repeat it for others to try.
    #[arg(long, value_name = "REGEX")]
    pub(super) iface_regex: Vec<String>,
    /// Use the interface by which this address is reached; tried last.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) iface_can_reach: Option<IpAddr>,
    /// Address by which other hosts reach this one [default: the interface's]. Without any flag for the
    /// interface it must be an address of this host, and chooses the interface.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) public_ip: Option<Ipv4Addr>,
    /// IPv6 address by which other hosts reach this one.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) public_ipv6: Option<Ipv6Addr>,
}

#[derive(Args)]
#[command(next_help_heading = "Lease")]
pub(super) struct LeaseFlags {
    /// File from which container runtimes read the leased subnet.
    #[arg(long, default_value = "/run/flannel/subnet.env", value_name = "FILE")]
    pub(super) subnet_file: PathBuf,
    /// How long before its end the lease is renewed, in minutes, 1 to 1439. A lease that is not longer
    /// than that is renewed after a third of its time.
    #[arg(long, default_value_t = 60, value_name = "MINUTES")]
    pub(super) subnet_lease_renew_margin: i64,
    /// How long the lease outlives the daemon, with the units h, m and s, such as 1h30m.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = lease_ttl)]
    pub(super) subnet_lease_ttl: Duration,
    /// A mass deletion is when more than this share of the peers, in percent, and at least ten of them, vanish at
    /// once. Forwarding to them then continues for --mass-delete-hold, so that their leases can come back.
    #[arg(long, default_value_t = 30, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) mass_delete_threshold: u8,
    /// How long peers of a mass deletion are held; 0s for not at all. `flannelctl release` ends it early.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = pause)]
    pub(super) mass_delete_hold: Duration,
    /// File with the last known leases, so that this host can boot and forward while etcd is away [default:
    /// below /var/lib/flannel-ebpf, made from --etcd-prefix].
    #[arg(long, value_name = "FILE")]
    pub(super) state_file: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Datapath")]
pub(super) struct DatapathFlags {
    /// Directory on a BPF file system where maps and links are pinned [default: below /sys/fs/bpf, made
    /// from --etcd-prefix].
    #[arg(long, value_name = "DIR")]
    pub(super) pin_dir: Option<PathBuf>,
    /// Where programs are attached.
    #[arg(long, value_enum, default_value = "auto", value_name = "HOOK")]
    pub(super) datapath_hook: HookChoice,
    /// Packets about which programs write to the log, at most twenty lines a second; the rest is counted.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(super) datapath_log: LogChoice,
    /// Count packets by peer and by reason. Turn it off only to measure what counting costs: metrics and
    /// flannelctl then show no packets.
    #[arg(long, default_value = "true")]
    pub(super) datapath_counters: Switch,
    /// Which packets the guard lets in from the tunnel.
    #[arg(long, value_enum, default_value = "strict", value_name = "LEVEL")]
    pub(super) guard: GuardChoice,
    /// Bridges whose ports lead to pods, separated by commas.
    #[arg(long, default_value = "cni0,docker0", value_name = "NAMES")]
    pub(super) pod_bridges: Interfaces,
    /// Which flows between pods and peers bypass bridge, routing and netfilter, once these are seen to change nothing
    /// of the flow.
    #[arg(long, alias = "pod-fast-path", value_enum, default_value = "auto", value_name = "MODE")]
    pub(super) pod_bypass: BypassChoice,
    /// Copy the DSCP of the inner packet to the outer one, so that the underlay can classify it; by default none, as
    /// stock flannel.
    #[arg(long, default_value = "false")]
    pub(super) copy_dscp: Switch,
}

#[derive(Args)]
#[command(next_help_heading = "Rules")]
pub(super) struct RuleFlags {
    /// Masquerade packets between the network and other networks.
    #[arg(long, default_value = "false")]
    pub(super) ip_masq: Switch,
    /// Masquerade without random source ports; ignored without --ip-masq.
    #[arg(long, default_value = "false")]
    pub(super) ip_masq_fully_random_disable: Switch,
    /// Seconds between two checks of the rules; ignored without --ip-masq.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) iptables_resync: u32,
    /// Accept forwarded packets from and to the network.
    #[arg(long, default_value = "true")]
    pub(super) iptables_forward_rules: Switch,
    /// Have the host forward packets of IPv4 (net.ipv4.ip_forward), at the start and whenever it does not. Without this
    /// flag it is only told.
    #[arg(long, default_value = "false")]
    pub(super) ip_forward: Switch,
    /// Keep a blackhole route for this host's own subnet.
    #[arg(long, default_value = "false")]
    pub(super) ip_blackhole_route: Switch,
}

#[derive(Args)]
#[command(next_help_heading = "Cloud")]
pub(super) struct CloudFlags {
    /// About how many seconds lie between two looks at the cloud's route tables, with the backend of one.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) cloud_resync: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Health")]
pub(super) struct HealthFlags {
    /// Address on which /healthz, /readyz and /livez answer, and /metrics if it is a loopback address.
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS", value_parser = listen_ip)]
    pub(super) healthz_ip: IpAddr,
    /// TCP port on which they answer; 0 for none.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(super) healthz_port: u16,
    /// Address and TCP port on which /metrics answers, and /healthz, /readyz and /livez.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(super) metrics_listen: Option<SocketAddr>,
    /// Show counters of each peer in /metrics, seven series for each at most; auto: while there are 100 peers or fewer.
    #[arg(long, default_value = "auto")]
    pub(super) metrics_per_peer: PerPeerChoice,
}

#[derive(Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct KubernetesFlags {
    /// Take subnets from Kubernetes' nodes instead of etcd.
    #[arg(long, default_value = "false")]
    pub(super) kube_subnet_mgr: Switch,
    /// URL of the API server; not needed inside the cluster.
    #[arg(long, value_name = "URL")]
    pub(super) kube_api_url: Option<String>,
    /// How to reach the API server, a kubeconfig file.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig_file: Option<PathBuf>,
    /// Prefix of the annotations of nodes.
    #[arg(long, default_value = ANNOTATION_PREFIX, value_name = "PREFIX")]
    pub(super) kube_annotation_prefix: String,
    /// File with the network's configuration.
    #[arg(long, default_value = NET_CONFIG_PATH, value_name = "FILE")]
    pub(super) net_config_path: PathBuf,
    /// Report to Kubernetes that the node's network is available; ignored without --kube-subnet-mgr.
    #[arg(long, default_value = "true")]
    pub(super) set_node_network_unavailable: Switch,
}

#[derive(Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LoggingFlags {
    /// How much is logged: 0 what operators need, 1 to 3 also what helps to find faults, 4 and more
    /// everything.
    #[arg(long, default_value_t = 0, value_name = "LEVEL")]
    pub(super) v: i32,
    /// Format of the log.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// Levels for single source files.
    #[arg(long, value_name = "PATTERN=LEVEL,...")]
    pub(super) vmodule: Option<String>,
    /// Source line at which a stack trace is logged; :0 for none.
    #[arg(long = "log_backtrace_at", value_name = "FILE:LINE")]
    pub(super) log_backtrace_at: Option<String>,
}
