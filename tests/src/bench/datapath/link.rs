//! The links between the two hosts of a path.

use anyhow::Result;
use clap::ValueEnum;

use crate::network::{Host, Offloads, set_offloads};
use crate::traffic::Endpoint;

/// What the cable between two hosts is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Link {
    /// A veth pair as it is: segments and checksums are left undone.
    Veth,
    /// Packets are cut and checksummed before they are sent and put together on receipt, as by network cards.
    Wire,
    /// The same at 100 Mbit/s.
    #[value(name = "100m")]
    Slow,
}

/// Of the slow link: with preamble, checksum and gap a frame takes 24 bytes more of a real one than the kernel
/// counts. A queue of 50 ms keeps it full, and what a busy machine did not send in time it may send after, up to 5 ms.
const SHAPER: &str = "stab overhead 24 linklayer ethernet tbf rate 100mbit burst 64kb latency 50ms";

impl Link {
    /// In the order in which they are measured: each can follow the one before.
    pub const ALL: &[Self] = &[Self::Veth, Self::Wire, Self::Slow];
    /// Where the CPU is the limit.
    pub const FAST: &[Self] = &[Self::Veth, Self::Wire];
    /// Where the link is the limit.
    pub const SLOW: &[Self] = &[Self::Slow];

    /// For people, in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Wire => "wire",
            Self::Slow => "100m",
        }
    }

    /// For people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Veth => "a veth pair as it is",
            Self::Wire => {
                "as a real wire: packets cut and checksummed by the sender, put together by the receiver"
            }
            Self::Slow => "a wire of 100 Mbit/s",
        }
    }

    /// Makes the cable between the hosts of a path so; `ends` are those of the path.
    pub(in crate::bench) fn apply(self, hosts: &[Host; 2], ends: [&Endpoint; 2]) -> Result<()> {
        for host in hosts {
            let offloads = if self == Self::Veth { Offloads::All } else { Offloads::Receive };
            set_offloads(&host.namespace, "eth0", offloads)?;
            if self == Self::Slow {
                host.namespace.run("tc", &format!("qdisc replace dev eth0 root {SHAPER}"))?;
            }
        }
        if self == Self::Slow {
            // The shaper sees super-packets before they are cut, and would charge the overhead of one frame.
            for end in ends {
                end.namespace.ip("link set eth0 gso_max_segs 1")?;
            }
        }
        Ok(())
    }
}
