//! Whether XDP programs have send queues of their own, if the driver allocates them on attachment.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The driver whose rule this is. Others have queues for XDP, or refuse the program.
pub const DRIVER: &str = "virtio_net";

/// By which queues XDP programs send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpTransmit {
    /// By one for each CPU.
    Own,
    /// By those of the stack, under a lock.
    Locked,
}

/// Queues of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queues {
    /// For packets that arrive, and in use.
    receive: u32,
    /// For packets of the stack, and in use.
    transmit: u32,
    /// The maximum for each direction.
    most: u32,
}

/// How XDP programs send, or would if one were attached, by a card of [`DRIVER`] that can have `most` queues for each
/// direction. `sysfs` is the folder of the card. `None` if that says nothing.
#[must_use]
pub fn xdp_transmit(sysfs: &Path, most: u32, is_native: bool) -> Option<XdpTransmit> {
    let (mut receive, mut transmit) = (0, 0);
    for queue in fs::read_dir(sysfs.join("queues")).ok()?.flatten() {
        match queue.file_name().to_string_lossy().split('-').next() {
            Some("rx") => receive += 1,
            Some("tx") => transmit += 1,
            _ => {}
        }
    }
    let cpus = cpus(&fs::read_to_string("/sys/devices/system/cpu/possible").ok()?)?;
    Some(transmit_of(Queues { receive, transmit, most }, cpus, is_native))
}

/// `virtnet_xdp_set` takes one more queue per CPU, or none if there are too few. Those count as receive queues in use,
/// not as send queues of the stack.
const fn transmit_of(queues: Queues, cpus: u32, is_native: bool) -> XdpTransmit {
    let is_own =
        if is_native { queues.receive > queues.transmit } else { queues.transmit + cpus <= queues.most };
    if is_own { XdpTransmit::Own } else { XdpTransmit::Locked }
}

/// `nr_cpu_ids`: one more than the last CPU in a list such as `0-3,8`.
fn cpus(possible: &str) -> Option<u32> {
    let last = possible.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Queues, XdpTransmit, cpus, transmit_of, xdp_transmit};

    #[rstest]
    #[case::to_spare((2, 2, 4), false, XdpTransmit::Own)]
    #[case::in_use((4, 4, 4), false, XdpTransmit::Locked)]
    #[case::one_queue((1, 1, 1), false, XdpTransmit::Locked)]
    #[case::taken((4, 2, 4), true, XdpTransmit::Own)]
    #[case::none_taken((4, 4, 4), true, XdpTransmit::Locked)]
    fn rule_of_the_driver(
        #[case] (receive, transmit, most): (u32, u32, u32),
        #[case] is_native: bool,
        #[case] expected: XdpTransmit,
    ) {
        assert_eq!(transmit_of(Queues { receive, transmit, most }, 2, is_native), expected);
    }

    #[test]
    fn queues_are_counted_by_their_names() {
        let sysfs = tempfile::tempdir().unwrap();
        for queue in ["rx-0", "rx-1", "rx-2", "tx-0"] {
            std::fs::create_dir_all(sysfs.path().join("queues").join(queue)).unwrap();
        }
        assert_eq!(xdp_transmit(sysfs.path(), 1, true), Some(XdpTransmit::Own));
        assert_eq!(xdp_transmit(sysfs.path(), 1, false), Some(XdpTransmit::Locked));
        assert_eq!(xdp_transmit(&sysfs.path().join("none"), 1, false), None);
    }

    #[test]
    fn cpus_end_behind_the_last() {
        assert_eq!(["0\n", "0-1\n", "0-3,8\n", "", "x"].map(cpus), [Some(1), Some(2), Some(9), None, None]);
    }
}
