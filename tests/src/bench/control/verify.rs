//! Whether the kernel holds what the leases say.

use anyhow::{Result, ensure};
use flannel_userspace::datapath::Tables;

use crate::daemon::Daemon;
use crate::network::Host;

const DEVICE: &str = "flannel.1";

/// Counts entries of the programs' table, neighbours, forwarding entries and routes.
pub(super) fn kernel_holds(host: &Host, daemon: &Daemon, peers: u32) -> Result<()> {
    let peers = usize::try_from(peers)?;
    let entries = Tables::open(daemon.pin_dir())?.peers()?.len();
    let lines =
        |program, arguments: &str| host.namespace.run(program, arguments).map(|text| text.lines().count());
    let counts = [
        ("entries of the table of peers", entries),
        ("neighbours", lines("ip", &format!("-4 neighbour show dev {DEVICE} nud permanent"))?),
        ("forwarding entries", lines("bridge", &format!("fdb show dev {DEVICE}"))?),
        ("routes", lines("ip", &format!("-4 route show dev {DEVICE}"))?),
    ];
    for (what, count) in counts {
        ensure!(count == peers, "there are {count} {what}, and {peers} peers");
    }
    Ok(())
}
