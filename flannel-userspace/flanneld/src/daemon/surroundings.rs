//! What on this host keeps packets from their way, and is not flannel's to change: settings, addresses, bridges.

use std::convert::Infallible;
use std::time::Duration;

use flannel_control::throttle::LogThrottle;
use flannel_model::config::cidr::{is_subnet_of, masked, overlap};
use flannel_model::device::is_flannel;
use flannel_model::error::Chain;
use flannel_model::family::{Family, Subnets};
use flannel_net::address::Address;
use flannel_net::{Netlink, forwarding};
use flannel_observe::{Condition, Limitation};
use ipnetwork::IpNetwork;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after what surrounds the network on this host.
pub(super) struct Surroundings {
    pub(super) netlink: Netlink,
    pub(super) networks: Subnets,
    pub(super) subnets: Subnets,
    /// Interfaces by which packets come that the host forwards.
    pub(super) forwarding: Vec<String>,
    pub(super) pod_bridges: Vec<String>,
    /// Whether flanneld turns forwarding on.
    pub(super) sets_forwarding: bool,
    /// Whether the host forwards.
    pub(super) forwards: Condition,
    /// Told of interfaces with addresses of the network.
    pub(super) addresses: Limitation,
    pub(super) throttles: Throttles,
}

/// What is logged once a minute at most.
#[derive(Default)]
pub(super) struct Throttles {
    forwarding: LogThrottle,
    addresses: LogThrottle,
}

impl Surroundings {
    /// Looks, without end.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            self.look_at_forwarding();
            self.look_at_addresses().await;
            sleep(LOOK).await;
        }
    }

    fn look_at_forwarding(&mut self) {
        let names = || self.forwarding.iter().map(String::as_str);
        let mut off = forwarding::not_forwarding(names());
        let mut refused = String::new();
        if self.sets_forwarding && !off.is_empty() {
            match forwarding::forward() {
                Ok(()) => {
                    info!(interfaces = ?off, "turned the forwarding of packets on (--ip-forward)");
                    off = forwarding::not_forwarding(names());
                }
                Err(error) => refused = format!("; --ip-forward cannot do that: {error}"),
            }
        }
        if off.is_empty() {
            self.forwards.meet();
            return;
        }
        let reason = format!(
            "what comes by {} is not forwarded (net.ipv4.conf.*.forwarding is 0): set net.ipv4.ip_forward to 1, for good \
             in /etc/sysctl.d, or start flanneld with --ip-forward{refused}",
            off.join(" and ")
        );
        if self.throttles.forwarding.should_log(&reason) {
            warn!("the host does not forward packets: {reason}");
        }
        self.forwards.fail(reason);
    }

    async fn look_at_addresses(&mut self) {
        let reasons = match self.foreign_addresses().await {
            Ok(reasons) => reasons,
            Err(error) => {
                let text = Chain(&error).to_string();
                if self.throttles.addresses.should_log(&text) {
                    warn!("cannot look at the addresses of this host's interfaces: {text}; trying again");
                }
                return;
            }
        };
        let told = reasons.join("; ");
        if self.addresses.set(reasons) {
            if told.is_empty() {
                info!("no interface has an address of the network any more that it should not have");
            } else {
                warn!("{told}");
            }
        }
    }

    /// What to tell of interfaces with addresses of the network that do not belong to them.
    async fn foreign_addresses(&self) -> Result<Vec<String>, flannel_net::Error> {
        let mut reasons = Vec::new();
        for (family, network) in self.networks.iter().map(|network| (Family::from(network), network)) {
            let Some(subnet) = self.subnets.get(family) else { continue };
            let addresses = self.netlink.addresses(family).await?;
            let suspects = addresses.into_iter().filter(|address| is_foreign(address, network, subnet));
            for Address { link, network: address, .. } in suspects {
                let Some(link) = self.netlink.link_by_index(link).await? else { continue };
                if !is_flannel(&link.name) {
                    reasons.push(self.explain(&link.name, address, network, subnet));
                }
            }
        }
        reasons.sort();
        Ok(reasons)
    }

    fn explain(&self, name: &str, address: IpNetwork, network: IpNetwork, subnet: IpNetwork) -> String {
        if self.pod_bridges.iter().any(|bridge| bridge == name) {
            return format!(
                "{name} has the address {address}, and this host's subnet is {subnet}: peers drop what pods behind \
                 {name} send; have its owner give it the subnet (Docker: restart it with the bip of the subnet file; \
                 CNI: `ip link delete {name}` and start the pods again)"
            );
        }
        format!(
            "{name} is connected to {}, a part of the network {network}: peers whose subnets overlap it are refused; \
             give {name} other addresses, or the network others",
            masked(address)
        )
    }
}

/// Whether an address lies in `network` and not in this host's `subnet`. One whose own network is larger was there before:
/// an operator has cut the flannel network out of it.
fn is_foreign(address: &Address, network: IpNetwork, subnet: IpNetwork) -> bool {
    let connected = masked(address.network);
    let is_cut_out = is_subnet_of(network, connected) && connected.prefix() < network.prefix();
    overlap(connected, network) && !is_cut_out && !is_subnet_of(connected, subnet)
}
