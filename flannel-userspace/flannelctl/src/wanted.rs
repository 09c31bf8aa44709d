//! What is wanted on this host: by the leases in etcd or Kubernetes, or by those flanneld last knew.

use std::path::Path;

use anyhow::Context as _;
use flannel_common::Vni;
use flannel_common::maps::Node;
use flannel_control::backend::{self, Backend, Transition};
use flannel_control::peers::{PeerTable, Site};
use flannel_control::remembered::Remembered;
use flannel_kubernetes::{NetConf, Nodes};
use flannel_model::backend::Kind;
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::config::{BackendConfig, NetworkConfig};
use flannel_model::family::{Family, PerFamily};
use flannel_model::lease::Snapshot;
use flannel_model::underlay::Underlay;
use flannel_model::vxlan::{Formats, VxlanFormat};
use flannel_net::{Netlink, interface};
use flannel_registry::etcd::Etcd;
use flannel_registry::{ConfigSource as _, LeaseSource as _};
use ipnetwork::Ipv4Network;
use serde::Serialize;

use super::daemon::Daemon;
use super::exit::{Code, Failure};
use super::nodes::Names;
use super::place::{Context, StateFile};
use super::registry::RegistryFlags;

/// Where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// In etcd, read just now.
    Etcd,
    /// At the API server of Kubernetes, read just now.
    Kubernetes,
    /// In the state file.
    StateFile,
}

impl Source {
    /// For people.
    pub(super) fn text(self, age_seconds: Option<u64>) -> String {
        match self {
            Self::Etcd => "etcd".to_owned(),
            Self::Kubernetes => "Kubernetes".to_owned(),
            Self::StateFile => {
                format!("the state file, written {},", super::units::ago(age_seconds))
            }
        }
    }
}

/// What is known of the network.
pub(super) struct Known {
    pub(super) source: Source,
    /// How old that is at most; nothing where it was read just now.
    pub(super) age_seconds: Option<u64>,
    pub(super) config: NetworkConfig,
    pub(super) backend: BackendConfig,
    /// Every lease, including this host's if it is in etcd.
    pub(super) leases: Snapshot,
    /// What the state file says of this host, if it was read.
    pub(super) remembered: Option<Remembered>,
    /// Where it was read, if in etcd.
    pub(super) registry: Option<Etcd>,
    /// How the nodes are called that hold the leases, where that is known.
    pub(super) names: Names,
    /// The daemon that runs.
    pub(super) daemon: Option<Daemon>,
    endpoints: Vec<String>,
}

impl Known {
    /// Reads etcd or Kubernetes if flags say how, else the state file.
    pub(super) async fn read(
        context: &Context<'_>,
        state_file: &StateFile,
        flags: &RegistryFlags,
    ) -> anyhow::Result<Self> {
        let (prefix, etcd) = (&context.place.etcd_prefix, &flags.etcd);
        // Who may not ask the daemon can ask etcd all the same.
        let daemon = Daemon::find(context.place).await.unwrap_or_default();
        let known = match (flags.kubernetes.open().await?, etcd.registry(prefix)?) {
            (Some((nodes, net_conf)), _) => Self::of_kubernetes(&nodes, &net_conf).await,
            (None, Some(registry)) => {
                let endpoints = etcd.options(prefix)?.map(|options| options.endpoints).unwrap_or_default();
                Self::of_etcd(registry, endpoints).await
            }
            (None, None) => {
                let path = state_file.path(context.place, daemon.as_ref().and_then(Daemon::settings));
                let told = daemon.as_ref().and_then(|daemon| daemon.told.as_ref().ok());
                let endpoints = told.map(|told| told.registry.endpoints.clone());
                let known = Self::of_file(&path, endpoints.unwrap_or_default());
                let names = Names::ask(context).await;
                known.map(|known| Self { names, ..known })
            }
        };
        Ok(Self { daemon, ..known? })
    }

    async fn of_etcd(registry: Etcd, endpoints: Vec<String>) -> anyhow::Result<Self> {
        let config = NetworkConfig::parse(&registry.config().await?)?;
        Ok(Self {
            source: Source::Etcd,
            age_seconds: None,
            backend: BackendConfig::parse(&config.backend)?,
            config,
            leases: registry.list().await?,
            remembered: None,
            registry: Some(registry),
            names: Names::default(),
            daemon: None,
            endpoints,
        })
    }

    async fn of_kubernetes(nodes: &Nodes, net_conf: &NetConf) -> anyhow::Result<Self> {
        let config = NetworkConfig::parse(&net_conf.config().await?)?;
        let leases = nodes.list().await?;
        Ok(Self {
            source: Source::Kubernetes,
            age_seconds: None,
            backend: BackendConfig::parse(&config.backend)?,
            config,
            leases,
            remembered: None,
            registry: None,
            names: nodes.names().into(),
            daemon: None,
            endpoints: vec![nodes.server()],
        })
    }

    fn of_file(path: &Path, endpoints: Vec<String>) -> anyhow::Result<Self> {
        let Some(remembered) = Remembered::read(path)? else {
            let message = format!(
                "no leases are known on this host: there is no state file {}; name another with --state-file, or \
                 ask etcd with --etcd-endpoints, or Kubernetes with --kube-subnet-mgr",
                path.display()
            );
            return Err(Failure::new(Code::NothingKnown, message).into());
        };
        let config = NetworkConfig::parse(&remembered.config)?;
        let backend = BackendConfig::parse(&config.backend)?;
        Ok(Self {
            source: Source::StateFile,
            age_seconds: Some(remembered.age().as_secs()),
            leases: remembered.snapshot(backend.kind()),
            config,
            backend,
            remembered: Some(remembered),
            registry: None,
            names: Names::default(),
            daemon: None,
            endpoints,
        })
    }

    /// How packets travel between hosts.
    pub(super) const fn kind(&self) -> Kind {
        self.backend.kind()
    }

    /// The interface that carries the tunnel, as it is now.
    pub(super) async fn underlay(&self, netlink: &Netlink, node: &Node) -> anyhow::Result<Underlay> {
        let own = self.remembered.as_ref().map(|remembered| remembered.own.public);
        let subnet = super::status::network(node.subnet, node.netmask);
        let told = || self.leases.leases.iter().find(|lease| lease.subnets.v4 == subnet);
        let options = InterfaceOptions {
            iface: vec![node.local_ip.to_string()],
            public: own.or_else(|| told().map(|lease| lease.attributes.public)).unwrap_or_default(),
            ..InterfaceOptions::default()
        };
        interface::choose(netlink, &options)
            .await
            .with_context(|| format!("the underlay's address {} is gone", node.local_ip))
    }

    /// The leases, checked against this host: the accepted ones, and the others.
    pub(super) async fn table(
        &self,
        netlink: &Netlink,
        node: &Node,
        underlay: &Underlay,
        subnet: Ipv4Network,
    ) -> anyhow::Result<PeerTable> {
        let gateway = netlink.default_route(Family::V4).await?.and_then(|route| route.via);
        let vteps = PerFamily { v4: self.formats(node).map(|formats| (formats, node.device_mac)), v6: None };
        let (backend, subnets) = ((self.kind(), vteps), subnet.into());
        let site = Site::new(&self.endpoints, &self.config, backend, underlay, &subnets, gateway);
        let mut table = PeerTable::new(site);
        table.apply_snapshot(&self.leases);
        Ok(table)
    }

    /// The formats of VXLAN in which this host takes packets.
    pub(super) fn formats(&self, node: &Node) -> Option<Formats> {
        let format = |vni, port: u32| {
            let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
            Some(VxlanFormat { vni: Vni::new(vni)?, port })
        };
        let present = format(node.vni, node.port).filter(|_| self.kind() == Kind::Vxlan)?;
        Some(Formats { present, former: format(node.former_vni, node.former_port) })
    }

    /// The backend in the formats of VXLAN that this host serves at present.
    pub(super) fn backend_of(&self, node: &Node) -> Box<dyn Backend> {
        match self.formats(node) {
            Some(Formats { present, former: Some(former) }) => {
                let transition = Transition { former: Some(former), ..Transition::default() };
                backend::between(&self.backend.with_vxlan_format(present), transition)
            }
            _ => backend::of(&self.backend),
        }
    }
}
