//! Runs of the suite `network` as on a kernel or a host that lacks something.

use std::process::Command;

use clap::ValueEnum as _;

/// Left out where filters stand under clsact. The hook decides how programs come to their places, are found again,
/// replaced and removed, and in which order they and those of others see a packet. It decides nothing of what a program
/// does with a packet: that is the same code, called at the same point of the kernel with the same packet. So these
/// lose nothing:
const CLSACT: &[&str] = &[
    // They choose a hook themselves, and run the same with whatever is forced.
    "clsact",
    "tcx",
    "xdp",
    // They have cases of their own for clsact.
    "dscp::",
    "bypass::flows_bypass_the_stack",
    "bypass::others::nothing_is_lost",
    "configuration::nothing_is_lost_while_direct",
    "another_choice_of_the_hook",
    "filters_of_others",
    "life::",
    "lines::dropped_packets",
    "privilege::",
    "queues::",
    "restart::",
    "stacked::",
    "super_packets::",
    "tcp::file_arrives",
    "vlan::",
    // They are about pinned links, or about an ingress qdisc of somebody else, which clsact is one of.
    "foreign::",
    "a_pod_somebody_else_looks_after",
    "what_others_see_on_the_way",
    // They are about what a program does with a packet.
    "count::",
    "ecn::",
    "bypass::a_packet_too_long",
    "bypass::contest::",
    "bypass::fragments_pass",
    "bypass::hops_are_counted",
    "bypass::netfilter::",
    "bypass::nothing_bypasses",
    "guard::",
    "headers::",
    "impostors::",
    "next_hop::",
    "offload::",
    "options::",
    "path_mtu::",
    "size::",
    // They are about hosts that take no program.
    "without_programs::",
];

/// What is lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fallback {
    /// TCX: programs are filters under clsact
    Clsact,
    /// The bypass: every packet goes through the stack
    NoBypass,
    /// nf_tables: rules are written with iptables' legacy variant
    LegacyIptables,
}

impl Fallback {
    /// Its name on the command line, and in the environment of the tests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clsact => "clsact",
            Self::NoBypass => "no-bypass",
            Self::LegacyIptables => "legacy-iptables",
        }
    }

    /// Parts of the names of tests that are left out: they choose it themselves, are about what is lacking, or cannot
    /// find out whether it is.
    pub const fn left_out(self) -> &'static [&'static str] {
        match self {
            Self::Clsact => CLSACT,
            Self::NoBypass => &["bypass::"],
            // That variant takes one capability more than the two.
            // One looks for the rules of the other variant.
            Self::LegacyIptables => &["privilege::", "configuration::nothing_is_lost_while_rules"],
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
