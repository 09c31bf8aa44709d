//! Packets of a machine's card that its kernel notes by a tracepoint.

use anyhow::{Context as _, Result};

use super::order::Obey;

/// A tracepoint with what it is to note of the card.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    event: &'static str,
    filter: &'static str,
}

/// Packets that the card is given to send (`__dev_queue_xmit`), of more than one on the wire has.
pub(super) const SUPER_PACKETS: Noted = Noted { event: "net_dev_queue", filter: "len > 3000" };
/// Packets that the driver hands to the stack with the word that their outermost checksum is right
/// (`CHECKSUM_UNNECESSARY`).
pub(super) const VOUCHED_FOR: Noted = Noted { event: "napi_gro_receive_entry", filter: "ip_summed == 1" };

impl Noted {
    /// Does `work`, and also returns how many packets the machine has noted meanwhile.
    pub(super) fn during<M: Obey, T>(
        self,
        machine: &mut M,
        work: impl FnOnce(&mut M) -> Result<T>,
    ) -> Result<(T, usize)> {
        let Self { event, filter } = self;
        let events = format!("/sys/kernel/tracing/events/net/{event}");
        let trace = "/sys/kernel/tracing/trace";
        machine.shell(&format!(
            "echo > {trace} && echo 'name == \"eth0\" && {filter}' > {events}/filter && echo 1 > {events}/enable"
        ))?;
        let done = work(machine);
        // grep fails where there is none.
        let count = machine.shell(&format!("echo 0 > {events}/enable; grep -c {event}: {trace} || true"))?;
        let count = count.trim().parse().with_context(|| format!("no number of packets: {count}"))?;
        Ok((done?, count))
    }
}
