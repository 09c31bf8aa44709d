//! Beside which others a test runs.
//!
//! Tests share the processors of this machine and nothing else: each has network namespaces, directories and pins of
//! its own, named after its process. What one measures can still be another's doing, and packets get lost where the
//! queues of a processor are full, whoever fills them.

use super::job::Job;

/// What a test tolerates beside it, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Others that load the machine as little as it does: it fails where a packet is lost, and loses none for want of time
    /// that others took. A stream excuses what the processors had no room for, and nobody here fills them.
    Quiet,
    /// Any but those two.
    Any,
    /// None: it measures throughput, latency or the time of processors, or counts losses and floods besides.
    None,
}

impl Company {
    pub const ALL: [Self; 3] = [Self::Quiet, Self::Any, Self::None];

    pub fn of(job: &Job) -> Self {
        let is_named = |(program, part, _): &&Named| job.program.name == *program && job.name.contains(part);
        NAMED.iter().find(is_named).map_or(Self::Any, |(.., company)| *company)
    }
}

/// A program, a part of the names of tests there, and their company.
type Named = (&'static str, &'static str, Company);

/// All of a program are named by "".
const NAMED: &[Named] = &[
    ("bench", "", Company::None),
    // They count losses, and iperf3 floods.
    ("docker", "podman::", Company::None),
    ("docker", "reach::", Company::None),
    ("fault", "", Company::Quiet),
    // Tens of thousands of leases take no time.
    ("flannel_control", "no_time", Company::None),
    ("flannel_tests", "traffic::tests::", Company::None),
    ("network", "another_choice_of_the_hook", Company::Quiet),
    ("network", "count::", Company::None),
    ("network", "bypass::flows_bypass_the_stack", Company::None),
    // A rule takes effect within 100 ms.
    ("network", "bypass::contest::a_bridge_that_floods", Company::Quiet),
    ("network", "bypass::contest::nothing_is_lost", Company::Quiet),
    ("network", "bypass::netfilter::a_rule_takes_effect", Company::None),
    ("network", "bypass::netfilter::a_tracked_gigabyte", Company::None),
    ("network", "bypass::others::nothing_is_lost", Company::Quiet),
    ("network", "impostors::a_stranger", Company::Quiet),
    ("network", "configuration::", Company::Quiet),
    ("network", "life::", Company::Quiet),
    ("network", "next_hop::", Company::Quiet),
    ("network", "restart::", Company::Quiet),
    ("network", "without_programs::nothing_is_lost", Company::Quiet),
    ("network", "tcp::gigabyte", Company::None),
];

/// Parts of names that no test has.
pub fn unknown(jobs: &[Job]) -> Vec<String> {
    let is_known = |(program, part, _): &Named| {
        jobs.iter().any(|job| job.program.name == *program && job.name.contains(part))
    };
    NAMED
        .iter()
        .filter(|named| !is_known(named))
        .map(|(program, part, _)| format!("{program} {part}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::{Company, NAMED, unknown};
    use crate::test::job::Job;
    use crate::test::program::Program;

    fn job(program: &str, name: &str) -> Job {
        let (path, folder, is_suite) = (PathBuf::new(), PathBuf::new(), true);
        let program = Arc::new(Program { name: program.to_owned(), path, folder, is_suite });
        Job { program, name: name.to_owned(), fallback: None }
    }

    #[test]
    fn company_is_by_program_and_name() {
        for (program, name, company) in [
            ("bench", "ratios", Company::None),
            ("fault", "boot::reboot", Company::Quiet),
            ("network", "life::case_1", Company::Quiet),
            ("network", "tcp::gigabyte_arrives_whole::case_1_udp", Company::None),
            ("network", "tcp::file_arrives_whole_both_ways::case_1", Company::Any),
            ("cli", "life::case_1", Company::Any),
        ] {
            assert_eq!(Company::of(&job(program, name)), company, "{program} {name}");
        }
    }

    #[test]
    fn names_that_no_test_has_are_told() {
        let unknown = unknown(&[job("bench", "ratios"), job("cli", "restart::")]);
        assert_eq!(unknown.len(), NAMED.len() - 1);
        assert!(unknown.contains(&"network restart::".to_owned()), "{unknown:?}");
    }
}
