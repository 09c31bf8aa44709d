//! Wrong checksums, as the kernels of the machines count them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Endpoint;

/// Counters of wrong checksums by machine and name, such as `h1p1 Tcp.InCsumErrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksumErrors {
    counters: BTreeMap<String, u64>,
}

impl ChecksumErrors {
    /// Reads the counters of machines.
    ///
    /// # Errors
    /// They cannot be read, or the kernel has no such counters.
    pub fn of(machines: &[&Endpoint]) -> Result<Self> {
        let mut counters = BTreeMap::new();
        for machine in machines {
            for file in ["snmp", "netstat"] {
                let found = parse(&machine.namespace.proc_net(file)?);
                ensure!(!found.is_empty(), "the kernel counts no wrong checksums in {file}");
                counters.extend(
                    found.into_iter().map(|(name, count)| (format!("{} {name}", machine.name), count)),
                );
            }
        }
        Ok(Self { counters })
    }

    /// How many were counted since under names that contain `name`.
    #[must_use]
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        let sum = |errors: &Self| -> u64 {
            errors.counters.iter().filter(|(found, _)| found.contains(name)).map(|(_, count)| count).sum()
        };
        sum(self) - sum(before)
    }

    /// Fails if any was counted since.
    ///
    /// # Errors
    /// Wrong checksums were counted.
    pub fn check_none_since(&self, before: &Self) -> Result<()> {
        ensure!(self == before, "wrong checksums: {:?}, before {:?}", self.counters, before.counters);
        Ok(())
    }
}

/// Reads pairs of lines, `Tcp: names…` and `Tcp: numbers…`.
fn parse(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = Vec::new();
    for pair in lines.chunks_exact(2) {
        let (names, numbers) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        let protocol = names.clone().next().unwrap_or_default().trim_end_matches(':');
        for (name, number) in names.zip(numbers).filter(|(name, _)| name.contains("Csum")) {
            counters.push((format!("{protocol}.{name}"), number.parse().unwrap_or(u64::MAX)));
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Tcp: RtoMin InCsumErrors\nTcp: 200 3\nUdp: InDatagrams InCsumErrors\nUdp: 9 0\n";
        assert_eq!(parse(text), [("Tcp.InCsumErrors".to_owned(), 3), ("Udp.InCsumErrors".to_owned(), 0)]);
    }
}
