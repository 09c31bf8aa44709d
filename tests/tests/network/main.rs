//! Hosts, pods and traffic: the real daemon on hosts played by network namespaces.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod coexist;
mod count;
mod ecn;
mod fast_path;
mod guard;
mod headers;
mod privilege;
mod reach;
mod restart;
mod size;
mod tcp;

use flannel_tests::cluster::{Cluster, Plan};
use flannel_tests::leases;
use flannel_tests::network::{HostOptions, RpFilter};
use flannel_tests::traffic::inject::Format;

/// The backends' configurations.
const UDP: &str = r#"{"Type":"udp"}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const DIRECT: &str = r#"{"Type":"vxlan","DirectRouting":true}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// Hosts that check the sources of packets.
const STRICT: HostOptions =
    HostOptions { rp_filter: RpFilter::Strict, offloads: flannel_tests::network::Offloads::All };

/// A cluster whose programs are attached in that way.
fn cluster(backend: &str, hook: &str) -> Cluster {
    Cluster::start(&Plan::new(backend).with_flag(&format!("--datapath-hook={hook}"))).unwrap()
}

/// How a tunnel packet to a member must be wrapped.
fn format_to(cluster: &Cluster, member: usize) -> Format {
    let subnet = cluster.members[member].node.file.subnet;
    let leases = leases::list(&cluster.etcd, flannel_tests::cluster::PREFIX).unwrap();
    let lease = leases.into_iter().find(|lease| lease.subnet == subnet).unwrap();
    lease.vtep_mac.map_or(Format::Udp, |mac| {
        let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Format::Vxlan(bytes.try_into().unwrap())
    })
}
