//! Cables between machines: veth pairs.

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use tokio::runtime::Builder;

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

/// Lets an interface take IPv4 super-packets of up to `bytes`, which may be more than the length field of a packet can
/// say ("BIG TCP").
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn allow_super_packets(machine: &Namespace, interface: &str, bytes: u32) -> Result<()> {
    let sizes = [LinkAttribute::GsoMaxSize, LinkAttribute::GsoIpv4MaxSize, LinkAttribute::GroIpv4MaxSize]
        .map(|of| of(bytes));
    machine.within(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                let start = LinkUnspec::new_with_index(if_nametoindex(interface)?);
                let message =
                    sizes.into_iter().fold(start, LinkMessageBuilder::append_extra_attribute).build();
                handle.link().change(message).execute().await?;
                anyhow::Ok(())
            })
            .with_context(|| format!("super-packets of {bytes} bytes for {interface}"))
    })
}
