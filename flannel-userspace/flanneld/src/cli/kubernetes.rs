//! The settings of `--kube-subnet-mgr`, of which some are stock flannel's variables without a flag.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use flannel_kubernetes::{Access, NodeName, Prefix};

use super::flags::{ANNOTATION_PREFIX, KubernetesFlags, NET_CONFIG_PATH};
use super::refusal::Refusal;
use super::words::Settings;

/// The files by which a pod finds and is known to the API server.
const SERVICE_ACCOUNT: [&str; 2] = [
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
];

/// How subnets are taken from Kubernetes' nodes.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// Where the API server is.
    pub access: Access,
    /// What flannel's annotations begin with.
    pub prefix: Prefix,
    /// How this host's node is called.
    pub node: NodeName,
    /// The file with the network's configuration.
    pub net_conf: PathBuf,
    /// Whether Kubernetes is told that the node's network is available.
    pub sets_condition: bool,
}

impl KubernetesOptions {
    /// The files that are read again and again.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let service_account = SERVICE_ACCOUNT.map(Path::new).into_iter();
        [&*self.net_conf].into_iter().chain(self.access.kubeconfig.as_deref()).chain(service_account)
    }

    /// The settings, if Kubernetes is the registry.
    pub(super) fn new(
        flags: KubernetesFlags,
        settings: &Settings,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Refusal> {
        if !flags.kube_subnet_mgr.is_on() {
            return refuse_without_meaning(&flags, settings).map(|()| None);
        }
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::value(format!("Failed to create SubnetManager: {error}"))
        };
        check_queue(&environment).map_err(|error| failed(&error))?;
        Ok(Some(Self {
            access: Access { url: flags.kube_api_url, kubeconfig: flags.kubeconfig_file },
            prefix: flags.kube_annotation_prefix.parse().map_err(|error| failed(&error))?,
            node: node_name(&environment).ok_or_else(|| failed(&NO_NODE))?,
            net_conf: flags.net_config_path,
            sets_condition: flags.set_node_network_unavailable.is_on(),
        }))
    }
}

/// Stock flannel's words, and what else there is.
const NO_NODE: &str =
    "env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME to the name of this host's node";

fn node_name(environment: impl Fn(&str) -> Option<OsString>) -> Option<NodeName> {
    let text = |name| environment(name)?.into_string().ok().filter(|text| !text.is_empty());
    if let Some(name) = text("NODE_NAME") {
        return Some(NodeName::Given(name));
    }
    Some(NodeName::OfPod { namespace: text("POD_NAMESPACE")?, pod: text("POD_NAME")? })
}

/// Nothing waits in a queue of bounded length here, but what stock flannel refuses is a mistake here, too.
fn check_queue(environment: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    let Some(depth) = environment("EVENT_QUEUE_DEPTH").filter(|depth| !depth.is_empty()) else {
        return Ok(());
    };
    let depth = depth.to_string_lossy();
    let error = |error| format!("env EVENT_QUEUE_DEPTH={depth} format error: {error}");
    depth.parse::<u32>().map(|_| ()).map_err(error)
}

/// A flag that would have no effect is a mistake.
fn refuse_without_meaning(flags: &KubernetesFlags, settings: &Settings) -> Result<(), Refusal> {
    let given = [
        ("kube-api-url", flags.kube_api_url.is_some()),
        ("kubeconfig-file", flags.kubeconfig_file.is_some()),
        ("kube-annotation-prefix", flags.kube_annotation_prefix != ANNOTATION_PREFIX),
        ("net-config-path", flags.net_config_path.as_os_str() != NET_CONFIG_PATH),
    ];
    let given: Vec<String> = given
        .into_iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(flag, _)| {
            format!(
                "{} has a meaning with --kube-subnet-mgr only: give that, or leave it out",
                settings.written(flag)
            )
        })
        .collect();
    if given.is_empty() { Ok(()) } else { Err(Refusal::value(given.join("\nerror: "))) }
}
