//! Cables between machines: veth pairs.

use anyhow::Result;

use crate::namespace::Namespace;

/// Which work of the sender an interface takes over. With none, every packet is on the wire as it would
/// be between machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// Segmentation and checksums are left undone: a veth pair's default.
    #[default]
    All,
    /// Packets are cut and checksummed before they are sent, but put together on receipt, as a network card
    /// and its driver do.
    Receive,
    /// Nothing is taken over.
    None,
}

/// Joins an interface of one machine with one of another.
pub(super) fn cable(
    one: &Namespace,
    name: &str,
    other: &Namespace,
    other_name: &str,
    queues: Option<u8>,
) -> Result<()> {
    let queues = queues.map(|number| format!("numrxqueues {number} numtxqueues {number}"));
    let queues = queues.unwrap_or_default();
    let peer = format!("peer name {other_name} {queues} netns {}", other.name());
    one.ip(&format!("link add {name} {queues} type veth {peer}"))?;
    Ok(())
}

/// Adds a bridge that keeps its Ethernet address. Left to itself it takes that of one of its ports, another one
/// as ports come; who knows the old one then talks to nobody for a while.
pub(super) fn add_bridge(machine: &Namespace, name: &str) -> Result<()> {
    machine.ip(&format!("link add {name} address 02:00:00:00:00:01 type bridge"))?;
    Ok(())
}

/// Sets the offloads of an interface.
///
/// # Errors
/// There is no such interface.
pub fn set_offloads(machine: &Namespace, interface: &str, offloads: Offloads) -> Result<()> {
    let (send, receive) = match offloads {
        Offloads::All => return Ok(()),
        Offloads::Receive => ("off", "on"),
        Offloads::None => ("off", "off"),
    };
    let features = format!("-K {interface} tso {send} gso {send} tx {send} gro {receive}");
    machine.run("ethtool", &features)?;
    Ok(())
}
