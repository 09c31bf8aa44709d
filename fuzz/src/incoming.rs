//! A frame that arrives at the underlay: anybody can send one.

use anyhow::{Result, ensure};
use flannel_common::maps::{Guard, Node};
use flannel_common::{Ip4, Reason};
use flannel_ebpf::frame::Encapsulation;
use flannel_ebpf::{udp, vxlan};

use crate::hosts::{ENCAPSULATIONS, ETHERNET, NETMASK, PEERS, ipv4_header, node, table};
use crate::limit::timed;

/// A frame that is not let in is untouched. One that is let in comes from a source that the guard accepts, is addressed
/// to the flannel device, and its packet is what was sent, but for the congestion mark.
///
/// # Errors
/// Something does not hold.
pub fn check(input: &[u8]) -> Result<()> {
    for encapsulation in ENCAPSULATIONS {
        for guard in Guard::ALL {
            let node = node(encapsulation, *guard);
            let mut frame = input.to_vec();
            match timed(|| decapsulate(encapsulation, &mut frame, &node))? {
                Ok(from) => {
                    check_guard(*guard, input, &frame)?;
                    check_packet(encapsulation, &node, input, &frame, from)?;
                }
                Err(reason) => ensure!(frame == input, "{reason:?}, but the frame was changed"),
            }
        }
    }
    Ok(())
}

fn decapsulate(encapsulation: Encapsulation, frame: &mut Vec<u8>, node: &Node) -> Result<Ip4, Reason> {
    match encapsulation {
        Encapsulation::Udp => udp::decapsulate(frame, &table(), node),
        Encapsulation::Vxlan => vxlan::decapsulate(frame, &table(), node),
    }
}

fn check_guard(guard: Guard, sent: &[u8], arrived: &[u8]) -> Result<()> {
    let (outer, inner) = (ipv4_header(sent, ETHERNET)?, ipv4_header(arrived, ETHERNET)?);
    let is_peer = PEERS.iter().any(|(_, public_ip, _)| *public_ip == outer.source());
    let is_owner = PEERS.iter().any(|(subnet, public_ip, _)| {
        *public_ip == outer.source() && *subnet == inner.source().masked(NETMASK)
    });
    let is_local = inner.destination().masked(NETMASK) == node(Encapsulation::Udp, guard).subnet;
    let is_allowed = match guard {
        Guard::Off => true,
        Guard::Peer => is_peer && is_local,
        Guard::Strict => is_owner && is_local,
    };
    ensure!(is_allowed, "the guard {guard:?} let {inner:?} in from {}", outer.source());
    Ok(())
}

fn check_packet(
    encapsulation: Encapsulation,
    node: &Node,
    sent: &[u8],
    arrived: &[u8],
    from: Ip4,
) -> Result<()> {
    let overhead = encapsulation.overhead() as usize;
    ensure!(arrived.len() + overhead == sent.len(), "{} of {} bytes arrived", arrived.len(), sent.len());
    ensure!(arrived[..6] == node.device_mac.0, "not addressed to the device");
    ensure!(arrived[12..ETHERNET] == [8, 0], "not marked as IPv4");

    let (before, after) = (ipv4_header(sent, ETHERNET + overhead)?, ipv4_header(arrived, ETHERNET)?);
    ensure!(from == after.source().masked(NETMASK), "from {from}");
    ensure!(before.tos >> 2 == after.tos >> 2, "the DSCP was changed: {after:?}");
    let is_good = |header: &flannel_common::wire::Ipv4Header| header.checksum == header.computed_checksum();
    ensure!(!is_good(&before) || is_good(&after), "a good checksum became a bad one: {after:?}");
    let mut expected = sent[ETHERNET + overhead..].to_vec();
    expected[1] = after.tos;
    expected[10..12].copy_from_slice(&after.checksum.to_bytes());
    ensure!(arrived[ETHERNET..] == expected, "another packet arrived");
    Ok(())
}
