//! The kinds of cards that guests have.

use clap::ValueEnum;

use super::wire::Side;
use crate::vm::Device;

/// Queues for each direction. A driver uses as many as there are processors, and native XDP wants as many again to send by.
const QUEUES: u32 = 4;

/// What a card takes over on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Card {
    /// Nothing
    Bare,
    /// Checksums and the merging of packets, until the driver turns that off for XDP; the wire verifies checksums
    Offloading,
    /// The same for good, so that its driver refuses native XDP
    Stubborn,
}

impl Card {
    /// For people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Bare => "cards without receive offloads",
            Self::Offloading => {
                "cards with receive offloads, which the driver can turn off; their wire looks at checksums"
            }
            Self::Stubborn => "cards with receive offloads, which the driver cannot turn off",
        }
    }

    /// By the name that the command line and the guest's program know.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether what arrives has a verdict on its checksums (`VIRTIO_NET_HDR_F_DATA_VALID`), as with hardware.
    pub fn has_verdicts(self) -> bool {
        self == Self::Offloading
    }

    /// The device of a guest at that end of the wire.
    pub fn device(self, side: Side) -> Device {
        let offloads = match self {
            Self::Bare => "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
            Self::Offloading => "guest_csum=on,guest_tso4=on,ctrl_guest_offloads=on",
            Self::Stubborn => "guest_csum=on,guest_tso4=on,ctrl_guest_offloads=off",
        };
        // An interrupt for each queue of each direction, one for settings and one for their control.
        let vectors = 2 * QUEUES + 2;
        let (port, mac) = (side.port(), side.mac());
        Device {
            netdev: format!("tap,id=card,ifname={port},script=no,downscript=no,vhost=off,queues={QUEUES}"),
            device: format!(
                "virtio-net-pci,netdev=card,mac={mac},mq=on,vectors={vectors},romfile=,{offloads}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Card, Side};

    #[test]
    fn each_end_has_a_card_of_its_own() {
        let [near, far] = Side::BOTH.map(|side| Card::Bare.device(side));
        assert!(near.netdev.contains("ifname=near,") && far.netdev.contains("ifname=far,"));
        assert!(near.device.contains("guest_csum=off") && near.device.contains("vectors=10,"));
        assert_ne!(near.device, far.device);
        assert_eq!(Card::Stubborn.name(), "stubborn");
    }
}
