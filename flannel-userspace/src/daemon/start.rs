//! From a command line to a host that forwards.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use super::configuration;
use super::error::DaemonError;
use super::report::Chain;
use crate::backend::Backend;
use crate::cli::flanneld::Options;
use crate::config::subnet_file::Previous;
use crate::config::{BackendConfig, NetworkConfig, SubnetFile};
use crate::datapath::PinDir;
use crate::kernel::{Monitor, Netlink, Underlay, interface};
use crate::lease::{AcquireConfig, AcquireError, Hold, OwnLease, Pool, acquire};
use crate::peers::{PeerTable, Site};
use crate::reconcile::{Announcement, Ground, KernelState, Reconciler};
use crate::registry::etcd::Etcd;

/// Pauses between attempts to get a lease from a registry that fails: from the first to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A host that forwards, and what keeps it so.
pub(super) struct Started {
    pub(super) reconciler: Reconciler<Etcd>,
    pub(super) hold: Hold<Etcd>,
    pub(super) subnet_file: PathBuf,
}

/// The order is stock flannel's: configuration, interface, device, lease, datapath, subnet file. The pin
/// directory comes before all that, for a second daemon must not touch what the first one holds.
pub(super) async fn start(options: Options, synced: oneshot::Sender<()>) -> Result<Started, DaemonError> {
    let netlink = Netlink::open()?;
    let monitor = Monitor::open()?;
    let pins = Arc::new(PinDir::open(&options.pin_dir)?);
    let registry = Etcd::new(options.etcd.clone()).map_err(DaemonError::Registry)?;
    let config = configuration::wait_for(&registry).await?;
    let backend_config = BackendConfig::parse(&config.backend)?;
    let underlay = interface::choose(&netlink, &options.interface).await?;
    let backend = Backend::prepare(&backend_config, &netlink, &underlay).await?;

    let own = lease(&registry, &options, &config, &backend, &underlay).await?;
    let subnet = own.lease.subnet;
    let file = SubnetFile { network: config.network, subnet, mtu: backend.mtu(), ip_masq: false };
    let peers = PeerTable::new(site(&options, &config, &backend, &underlay, &own));
    let state = KernelState::start(Ground {
        netlink,
        backend,
        backend_config,
        underlay,
        interface: options.interface,
        network: config.network,
        subnet,
        pins,
        hook: options.hook,
        guard: options.guard,
        pod_bridges: options.pod_bridges,
    })
    .await?;

    let (hold, holder) = Hold::new(registry.clone(), options.lease, own);
    let announcement = Announcement { holder, file, path: options.subnet_file.clone() };
    announcement.write_file()?;
    let reconciler = Reconciler { registry, announcement, state, monitor, peers, synced: Some(synced) };
    Ok(Started { reconciler, hold, subnet_file: options.subnet_file })
}

/// Acquires a lease, however long the registry takes to be there.
async fn lease(
    registry: &Etcd,
    options: &Options,
    config: &NetworkConfig,
    backend: &Backend,
    underlay: &Underlay,
) -> Result<OwnLease, DaemonError> {
    let previous = Previous::read(&options.subnet_file)?.and_then(|file| file.previous_subnet());
    let wanted = AcquireConfig {
        pool: Pool::new(config.subnet_min, config.subnet_max, config.subnet_len)?,
        attributes: backend.attributes(underlay.public_ip),
        previous,
        ttl: options.lease.ttl,
    };
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .without_max_times()
        .build();
    loop {
        match acquire(registry, &wanted, &mut rng).await {
            Ok(own) => {
                let how = if own.reused { "reused" } else { "acquired" };
                info!(subnet = %own.lease.subnet, public_ip = %underlay.public_ip, "{how} the lease");
                return Ok(own);
            }
            Err(AcquireError::Registry(error)) => {
                warn!("cannot acquire a lease: {}; trying again", Chain(&error));
                sleep(pauses.next().unwrap_or(RETRY.1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn site(
    options: &Options,
    config: &NetworkConfig,
    backend: &Backend,
    underlay: &Underlay,
    own: &OwnLease,
) -> Site {
    let vtep = match backend {
        Backend::Vxlan(vxlan) => Some(vxlan.vtep()),
        Backend::Udp(_) | Backend::HostGw(_) | Backend::Alloc { .. } => None,
    };
    Site {
        network: config.network,
        subnet_len: config.subnet_len,
        subnet: own.lease.subnet,
        addresses: vec![underlay.address, underlay.public_ip],
        kind: backend.kind(),
        vtep,
        connected: underlay.networks.clone(),
        reserved: options.etcd.endpoints.iter().filter_map(|url| address_of(url)).collect(),
    }
}

/// The address in an endpoint's URL, if it is one of IPv4 and not a name.
fn address_of(url: &str) -> Option<Ipv4Addr> {
    let rest = url.trim().split_once("://").map_or(url.trim(), |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    match host.parse().ok()? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::address_of;

    #[rstest]
    #[case::plain("http://192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::path("https://192.168.77.1:2379/", Some("192.168.77.1"))]
    #[case::no_scheme("192.168.77.1:2379", Some("192.168.77.1"))]
    #[case::no_port("http://192.168.77.1", Some("192.168.77.1"))]
    #[case::name("http://etcd.example:2379", None)]
    #[case::ipv6("http://[fd00::1]:2379", None)]
    fn address_in_an_endpoint(#[case] url: &str, #[case] address: Option<&str>) {
        assert_eq!(address_of(url).map(|address| address.to_string()).as_deref(), address);
    }
}
