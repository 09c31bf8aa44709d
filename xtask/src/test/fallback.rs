//! Runs of the suite `network` as on a kernel or a host that lacks something.

use std::process::Command;

use clap::ValueEnum as _;

/// Left out where filters stand under clsact.
const CLSACT: &[&str] = &[
    "clsact",
    "tcx",
    "xdp",
    // About pinned links, and about an ingress qdisc of somebody else, which clsact is one of.
    "foreign::",
    "a_pod_somebody_else_looks_after",
    // These have cases of their own for clsact with every backend.
    "filters_of_others",
    "flows_are_shortened_without_loss",
    "daemons_go_and_come",
    "another_choice_of_the_hook",
];

/// What is lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fallback {
    /// TCX: programs are filters under clsact
    Clsact,
    /// The fast path: every packet takes the long way
    LongWay,
    /// nf_tables: rules are written with iptables' legacy variant
    LegacyIptables,
}

impl Fallback {
    /// Its name on the command line, and in the environment of the tests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clsact => "clsact",
            Self::LongWay => "long-way",
            Self::LegacyIptables => "legacy-iptables",
        }
    }

    /// Parts of the names of tests that are left out: they say themselves what is used, or are about what is
    /// lacked.
    pub const fn left_out(self) -> &'static [&'static str] {
        match self {
            Self::Clsact => CLSACT,
            Self::LongWay => &["fast_path::"],
            // That variant takes one capability more than the two.
            Self::LegacyIptables => &["privilege::"],
        }
    }

    /// Parts of names to be left out that no test of the suite has.
    pub fn unknown(tests: &[&str]) -> Vec<&'static str> {
        let parts = Self::value_variants().iter().flat_map(|fallback| fallback.left_out());
        parts.filter(|part| !tests.iter().any(|test| test.contains(**part))).copied().collect()
    }

    /// Has a test run so.
    pub fn force(self, test: &mut Command) {
        test.env("FLANNEL_TEST_FALLBACK", self.name());
    }
}
