//! Runs of the suite `network` as on a kernel or a host that lacks something.

use std::process::Command;

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
    /// Its name in the environment of the tests.
    const fn name(self) -> &'static str {
        match self {
            Self::Clsact => "clsact",
            Self::LongWay => "long-way",
            Self::LegacyIptables => "legacy-iptables",
        }
    }

    /// Parts of the names of tests that are left out, because they say themselves what is used or are about what is
    /// lacked.
    const fn left_out(self) -> &'static [&'static str] {
        match self {
            Self::Clsact => &[
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
            ],
            Self::LongWay => &["fast_path::"],
            // That variant takes one capability more than the two.
            Self::LegacyIptables => &["privilege::"],
        }
    }

    /// Has a `cargo test` run so; `are_for_tests` tells whether its last arguments are for the tests already.
    pub fn force(self, test: &mut Command, are_for_tests: bool) {
        test.env("FLANNEL_TEST_FALLBACK", self.name());
        if !are_for_tests {
            test.arg("--");
        }
        for part in self.left_out() {
            test.args(["--skip", part]);
        }
    }
}
