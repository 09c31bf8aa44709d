//! Hosts, pods and traffic: the real daemon on hosts played by network namespaces.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod bypass;
mod coexist;
mod configuration;
mod count;
mod dscp;
mod ecn;
mod foreign;
mod guard;
mod headers;
mod impostors;
mod life;
mod lines;
mod next_hop;
mod offload;
mod options;
mod passing_on;
mod path_mtu;
mod privilege;
mod queues;
mod reach;
mod reload;
mod restart;
mod routing;
mod size;
mod stacked;
mod super_packets;
mod tcp;
mod traces;
mod vlan;
mod without_programs;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::leases;
use flannel_tests::network::{HostOptions, RpFilter};
use flannel_tests::traffic::inject::Format;

/// The backends' configurations.
const UDP: &str = r#"{"Type":"udp"}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const DIRECT: &str = r#"{"Type":"vxlan","DirectRouting":true}"#;
const UDP_DIRECT: &str = r#"{"Type":"udp","DirectRouting":true}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// Hosts that check the sources of packets.
const STRICT: HostOptions = HostOptions {
    rp_filter: RpFilter::Strict,
    offloads: flannel_tests::network::Offloads::All,
    queues: None,
};

/// Two hosts, whose programs must have counted every packet once when they are gone.
fn plan(backend: &str) -> Plan {
    Plan { is_counted: true, ..Plan::new(backend) }
}

/// A cluster whose programs are attached by that mechanism.
fn cluster(backend: &str, hook: &str) -> Cluster {
    Cluster::start(&plan(backend).with_flag(&format!("--datapath-hook={hook}"))).unwrap()
}

/// How a tunnel packet to a member must be wrapped.
fn format_to(cluster: &Cluster, member: usize) -> Format {
    let subnet = cluster.members[member].node.file.subnet;
    let leases = leases::list(&cluster.etcd, flannel_tests::etcd::PREFIX).unwrap();
    let lease = leases.into_iter().find(|lease| lease.subnet == subnet).unwrap();
    lease.vtep_mac.map_or(Format::Udp, |mac| {
        let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Format::Vxlan(bytes.try_into().unwrap())
    })
}
