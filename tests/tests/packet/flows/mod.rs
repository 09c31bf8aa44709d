//! What is learned of flows: over byte vectors, and by the programs in the kernel.

mod kernel;
mod learning;
mod world;

use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder};

use crate::frames::{DEVICE_MAC, POD_MAC};

pub const LOCAL_POD: [u8; 4] = [10, 5, 1, 7];
pub const PEER_POD: [u8; 4] = [10, 5, 2, 9];

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Carried {
    Tcp { syn: bool, fin: bool, rst: bool },
    Udp,
    Echo,
    Unreachable,
}

pub const DATA: Carried = Carried::Tcp { syn: false, fin: false, rst: false };

/// A frame between two pods with this number of bytes of payload.
pub fn frame(carried: Carried, from: [u8; 4], to: [u8; 4], ttl: u8, payload: usize) -> Vec<u8> {
    let start = PacketBuilder::ethernet2(POD_MAC, DEVICE_MAC).ipv4(from, to, ttl);
    let (mut frame, payload) = (Vec::new(), vec![0x5a; payload]);
    let echo = IcmpEchoHeader { id: 77, seq: 1 };
    match carried {
        Carried::Tcp { syn, fin, rst } => {
            let mut tcp = start.tcp(4000, 80, 1, 1000).ack(1);
            tcp = if syn { tcp.syn() } else { tcp };
            tcp = if fin { tcp.fin() } else { tcp };
            if rst { tcp.rst() } else { tcp }.write(&mut frame, &payload)
        }
        Carried::Udp => start.udp(4000, 53).write(&mut frame, &payload),
        Carried::Echo => start.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut frame, &payload),
        Carried::Unreachable => {
            let unreachable = etherparse::icmpv4::DestUnreachableHeader::Port;
            start.icmpv4(Icmpv4Type::DestinationUnreachable(unreachable)).write(&mut frame, &payload)
        }
    }
    .unwrap();
    frame
}
