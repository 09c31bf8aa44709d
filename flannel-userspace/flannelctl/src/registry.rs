//! Where the leases are: etcd or Kubernetes, with flanneld's flags for each.

use std::path::PathBuf;

use clap::Args;
use flannel_kubernetes::{Access, NetConf, NodeName, Nodes, Prefix};
use flannel_registry::KubernetesMetrics;

use super::place::EtcdFlags;

/// Which registry is asked; none where no flag names one.
#[derive(Clone, Debug, Args)]
pub(super) struct RegistryFlags {
    #[command(flatten)]
    pub(super) etcd: EtcdFlags,
    #[command(flatten)]
    pub(super) kubernetes: KubernetesFlags,
}

/// How to reach the API server, with flanneld's flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct KubernetesFlags {
    /// Ask the API server, as a pod by its service account, else by the usual kubeconfig files.
    #[arg(long, env = "FLANNELD_KUBE_SUBNET_MGR", value_parser = clap::builder::FalseyValueParser::new())]
    kube_subnet_mgr: bool,
    /// Prefix of the nodes' annotations.
    #[arg(
        long,
        env = "FLANNELD_KUBE_ANNOTATION_PREFIX",
        default_value = "flannel.alpha.coreos.com",
        value_name = "PREFIX"
    )]
    kube_annotation_prefix: String,
    /// File with the network's configuration.
    #[arg(
        long,
        env = "FLANNELD_NET_CONFIG_PATH",
        default_value = "/etc/kube-flannel/net-conf.json",
        value_name = "FILE"
    )]
    net_config_path: PathBuf,
    #[command(flatten)]
    access: AccessFlags,
}

/// Where the API server is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct AccessFlags {
    /// URL of the API server.
    #[arg(long, env = "FLANNELD_KUBE_API_URL", value_name = "URL")]
    kube_api_url: Option<String>,
    /// kubeconfig file that says how to reach the API server.
    #[arg(long, env = "FLANNELD_KUBECONFIG_FILE", value_name = "FILE")]
    kubeconfig_file: Option<PathBuf>,
}

impl AccessFlags {
    /// Who is asked, and by whom.
    pub(super) fn access(&self) -> Access {
        let given = |url: &String| !url.is_empty();
        let named = |file: &PathBuf| !file.as_os_str().is_empty();
        Access {
            url: self.kube_api_url.clone().filter(given),
            kubeconfig: self.kubeconfig_file.clone().filter(named),
        }
    }
}

impl KubernetesFlags {
    /// The nodes, and the file with the configuration, if Kubernetes is to be asked.
    ///
    /// # Errors
    /// The flags do not say how; the file has no configuration.
    pub(super) async fn open(&self) -> anyhow::Result<Option<(Nodes, NetConf)>> {
        let access = self.access.access();
        if !self.kube_subnet_mgr && access.url.is_none() && access.kubeconfig.is_none() {
            return Ok(None);
        }
        let prefix: Prefix = self.kube_annotation_prefix.parse()?;
        // As nobody's node, so that this host's is among the leases.
        let nobody = NodeName::Given(String::new());
        let nodes = Nodes::open(access, prefix, nobody, KubernetesMetrics::default()).await?;
        Ok(Some((nodes, NetConf::open(&self.net_config_path)?)))
    }
}
