//! A frame that leaves by the flannel device: pods send what they like.

use anyhow::{Context as _, Result, ensure};
use flannel_common::maps::Guard;
use flannel_common::{Ip4, Reason};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::{udp, vxlan};

use crate::hosts::{ENCAPSULATIONS, ETHERNET, NETMASK, PEERS, ipv4_header, node, table};
use crate::limit::timed;

/// A frame that is not forwarded is untouched. One that is has outer headers whose lengths and checksum are
/// right, and the peer takes the same bytes out of it.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    for encapsulation in ENCAPSULATIONS {
        let mut frame = input.to_vec();
        match timed(|| encapsulate(encapsulation, &mut frame))? {
            Ok(subnet) => check_forwarded(encapsulation, input, frame, subnet)?,
            Err(reason) => ensure!(frame == input, "{reason:?}, but the frame was changed"),
        }
    }
    Ok(())
}

fn encapsulate(encapsulation: Encapsulation, frame: &mut Vec<u8>) -> Result<Ip4, Reason> {
    let node = node(encapsulation, Guard::Strict);
    let sent = match encapsulation {
        Encapsulation::Udp => udp::encapsulate(frame, &table(), &node, udp::State::AsSent, |_, _| Ok(())),
        Encapsulation::Vxlan => vxlan::encapsulate(frame, &table(), &node, |_, _| Ok(())),
    };
    sent.map(|(subnet, _)| subnet)
}

fn check_forwarded(
    encapsulation: Encapsulation,
    plain: &[u8],
    mut frame: Vec<u8>,
    subnet: Ip4,
) -> Result<()> {
    let node = node(encapsulation, Guard::Strict);
    let inner = ipv4_header(plain, ETHERNET)?;
    ensure!(inner.destination().masked(NETMASK) == subnet, "to {subnet}");
    let (_, public_ip, vtep) =
        PEERS.into_iter().find(|(of, ..)| *of == subnet).context("no peer's subnet")?;

    let overhead = encapsulation.overhead() as usize;
    ensure!(frame.len() == plain.len() + overhead, "{} bytes", frame.len());
    ensure!(frame[..ETHERNET] == plain[..ETHERNET], "the Ethernet header was changed");
    let outer = ipv4_header(&frame, ETHERNET)?;
    ensure!((outer.source(), outer.destination()) == (node.local_ip, public_ip), "{outer:?}");
    ensure!(outer.checksum == outer.computed_checksum(), "wrong checksum: {outer:?}");
    ensure!(outer.total_len.get() == length(frame.len() - ETHERNET), "wrong length: {outer:?}");
    let udp = frame[ETHERNET + 20..].first_chunk::<8>().context("no room for a UDP header")?;
    let [_, _, port @ .., _, _, _, _] = udp.map(u16::from);
    ensure!(u32::from(port[0] << 8 | port[1]) == node.port, "to port {port:?}");
    let udp_len = u16::from_be_bytes([udp[4], udp[5]]);
    ensure!(udp_len == length(frame.len() - ETHERNET - 20), "wrong length of UDP: {udp_len}");

    let mut receiver = node;
    (receiver.local_ip, receiver.device_mac, receiver.guard) = (public_ip, vtep, Guard::Off as u32);
    let arrived = match encapsulation {
        Encapsulation::Udp => udp::decapsulate(&mut frame, &table(), &receiver),
        Encapsulation::Vxlan => vxlan::decapsulate(&mut frame, &table(), &receiver),
    };
    match arrived {
        Ok(from) => {
            ensure!(from == inner.source().masked(NETMASK), "from {from}");
            ensure!(frame[ETHERNET..] == plain[ETHERNET..], "another packet arrived");
        }
        // A pod may send nonsense behind an Ethernet header that says IPv4.
        Err(reason) => ensure!(reason == Reason::BadIpHeader, "the peer refuses it: {reason:?}"),
    }
    Ok(())
}

/// A length field: zero where a packet is longer than it can say.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(0)
}
