//! Whether the kernel holds what the leases say.

use anyhow::{Result, ensure};
use flannel_datapath::Tables;

use super::network::Backend;
use crate::daemon::Daemon;
use crate::network::Host;

/// Counts entries of the programs' table, neighbours, forwarding entries and routes.
pub(super) fn kernel_holds(host: &Host, daemon: &Daemon, backend: Backend, peers: u32) -> Result<()> {
    let peers = usize::try_from(peers)?;
    let lines =
        |program, arguments: &str| host.namespace.run(program, arguments).map(|text| text.lines().count());
    let mut counts = vec![("entries of the table of peers", Tables::open(daemon.pin_dir())?.peers()?.len())];
    match backend {
        Backend::Vxlan => counts.extend([
            ("neighbours", lines("ip", "-4 neighbour show dev flannel.1 nud permanent")?),
            ("forwarding entries", lines("bridge", "fdb show dev flannel.1")?),
            ("routes", lines("ip", "-4 route show dev flannel.1")?),
        ]),
        Backend::HostGw => counts.push(("routes", lines("ip", "-4 route show proto 85")?)),
        Backend::Udp => {}
    }
    for (what, count) in counts {
        ensure!(count == peers, "there are {count} {what}, and {peers} peers");
    }
    Ok(())
}
