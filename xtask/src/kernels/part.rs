//! What runs in a guest.

use crate::vm::OBJECT;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The verifier alone
    Verifier,
    /// The verifier, and the shortest tests that show packets on their way
    Gate,
    /// The verifier, and all tests that a kernel can change
    Whole,
}

/// Tests by suite, by what their names hold.
type Tests = &'static [(&'static str, &'static [&'static str])];

const GATE: Tests = &[(
    "network",
    &[
        "guard::forgeries_are_dropped_and_counted::case_3",
        "reach::host_gw_on_one_segment::case_2",
        "reload::a_refused_reload_leaves_the_former_programs::case_1",
        "size::packets_of_exactly_the_mtu_pass_and_larger_ones_are_answered::case_3",
    ],
)];

const WHOLE: Tests = &[
    (
        "network",
        &[
            "guard::",
            "headers::",
            "life::",
            "lines::",
            "path_mtu::",
            "privilege::",
            "reach::",
            "reload::",
            "restart::nothing_is_lost_while",
            "size::",
            "super_packets::",
            "tcp::file_arrives_whole",
            "without_programs::",
        ],
    ),
    ("interop", &[]),
];

impl Part {
    const fn tests(self) -> Tests {
        match self {
            Self::Verifier => &[],
            Self::Gate => GATE,
            Self::Whole => WHOLE,
        }
    }

    /// The suites of the tests crate that the guest has as programs.
    pub fn suites(self) -> Vec<String> {
        self.tests().iter().map(|(suite, _)| (*suite).to_owned()).collect()
    }

    /// For the guest's shell. One test at a time: an emulated machine has no time for two. The exit code is not 0 where
    /// one of the programs failed.
    pub fn script(self) -> String {
        let mut script = format!("code=0; verifier --json {OBJECT} || code=1");
        for (suite, names) in self.tests() {
            script.push_str(&format!("; {suite} --test-threads=1 {} || code=1", names.join(" ")));
        }
        script.push_str("; exit $code");
        script
    }
}

#[cfg(test)]
mod tests {
    use super::Part;

    #[test]
    fn every_part_shows_the_verifier_every_program() {
        for part in [Part::Verifier, Part::Gate, Part::Whole] {
            let script = part.script();
            assert!(script.contains("verifier --json /flannel/flannel-datapath.o || code=1"), "{script}");
            assert!(
                part.suites().iter().all(|suite| script.contains(&format!("; {suite} --test-threads=1")))
            );
        }
        assert!(Part::Verifier.suites().is_empty());
    }
}
