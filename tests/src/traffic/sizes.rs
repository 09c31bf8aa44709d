//! How long packets are where they pass an interface, as its counters say: super-packets count as one.

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

/// What an interface has received since it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes, with Ethernet headers.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Received {
    /// Reads the counters.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn by(namespace: &Namespace, interface: &str) -> Result<Self> {
        let table = namespace.proc_net("dev")?;
        parse(&table, interface).with_context(|| format!("no interface {interface} in {table}"))
    }

    /// Mean length of the packets received since then, in bytes; zero if there were none.
    #[must_use]
    pub const fn mean_since(&self, before: &Self) -> u64 {
        match self.packets - before.packets {
            0 => 0,
            packets => (self.bytes - before.bytes) / packets,
        }
    }
}

/// The first two numbers behind the interface's name.
fn parse(table: &str, interface: &str) -> Option<Received> {
    let numbers =
        table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let mut numbers = numbers.split_whitespace().map_while(|number| number.parse().ok());
    Some(Received { bytes: numbers.next()?, packets: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::{Received, parse};

    #[test]
    fn numbers_of_an_interface() {
        let table = "face |bytes packets\n  eth01: 1 1 0\n  eth0: 3000 2 0 0\n";
        let found = parse(table, "eth0").unwrap();
        assert_eq!(found, Received { bytes: 3000, packets: 2 });
        assert_eq!(found.mean_since(&Received { bytes: 1000, packets: 1 }), 2000);
        assert_eq!(found.mean_since(&found), 0);
        assert_eq!(parse(table, "eth1"), None);
    }
}
