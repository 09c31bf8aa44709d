//! What runs in a guest.

use std::time::Duration;

use crate::vm::{OBJECT, TIME_LIMIT};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The verifier alone
    Verifier,
    /// The verifier, and the shortest tests with packets
    Gate,
    /// The verifier, frames through every program, and tests for whatever a kernel can change
    Whole,
}

/// Tests of one suite.
struct Tests {
    suite: &'static str,
    /// What names hold that are run; all without any.
    names: &'static [&'static str],
    /// What names hold that are not.
    skipped: &'static [&'static str],
}

const GATE: &[Tests] = &[Tests {
    suite: "network",
    names: &[
        "guard::forgeries_are_dropped_and_counted::case_3",
        "reach::host_gw_on_one_segment::case_2",
        "reload::a_refused_reload_leaves_the_former_programs::case_1",
        "size::packets_of_exactly_the_mtu_pass_and_larger_ones_are_answered::case_3",
    ],
    skipped: &[],
}];

/// An emulated machine takes 20 to 60 s for a test of the network, so each kind of path of a packet is tested once.
const WHOLE: &[Tests] = &[
    Tests {
        suite: "packet",
        names: &[],
        // The verifier is shown all programs by `verifier`, the model needs no kernel.
        skipped: &["programs_are_accepted", "model::", "flows::learning"],
    },
    Tests {
        suite: "network",
        names: &[
            "guard::forgeries_are_dropped_and_counted::case_2_udp_xdp",
            "guard::forgeries_are_dropped_and_counted::case_3_vxlan",
            "life::nothing_is_lost_or_left_by_daemons_that_are_killed::case_4_vxlan_clsact",
            "path_mtu::so_does_the_kernels_own_device",
            "privilege::everything_goes_with_two_capabilities::case_6_started_as_root",
            "privilege::everything_goes_with_two_capabilities::case_7_udp_started_as_root",
            "reach::everybody_across_a_router::case_03_udp_xdp",
            "reach::everybody_across_a_router::case_09_direct_routing",
            "reach::host_gw_on_one_segment::case_2",
            "reload::a_refused_reload_leaves_the_former_programs::case_1",
            "size::packets_of_exactly_the_mtu_pass_and_larger_ones_are_answered::case_1",
            "size::packets_of_exactly_the_mtu_pass_and_larger_ones_are_answered::case_3",
            "super_packets::a_file_reaches_the_pod_in_super_packets::case_03",
            "tcp::file_arrives_whole_both_ways::case_02_udp_on_a_card",
            "tcp::file_arrives_whole_both_ways::case_08_vxlan_xdp_on_a_card",
            "tcp::file_arrives_whole_both_ways::case_09_vxlan_xdp_generic",
            "without_programs::what_works_without_is_used_and_said::case_1",
        ],
        skipped: &[],
    },
    Tests { suite: "interop", names: &["kernel_vxlan_host::case_1", "stock_udp_host::case_1"], skipped: &[] },
];

/// What names of tests hold that older kernels cannot run, and the first kernel that can.
const LATER: &[(&str, (u32, u32))] = &[
    // The bypass's programs call `bpf_check_mtu`.
    ("flows::kernel", (5, 12)),
    // The cards of these tests are `veth` with GRO, which it has without XDP since then (`veth_set_features`).
    ("super_packets::", (5, 13)),
];

impl Part {
    const fn tests(self) -> &'static [Tests] {
        match self {
            Self::Verifier => &[],
            Self::Gate => GATE,
            Self::Whole => WHOLE,
        }
    }

    /// The suites of the tests crate that the guest has as programs.
    pub fn suites(self) -> Vec<String> {
        self.tests().iter().map(|tests| tests.suite.to_owned()).collect()
    }

    /// How long a guest may take, also on a machine with other work.
    pub const fn time_limit(self) -> Duration {
        match self {
            Self::Verifier | Self::Gate => TIME_LIMIT,
            Self::Whole => Duration::from_hours(2),
        }
    }

    /// For the shell of a guest with the kernel `release`. One test at a time: an emulated machine has no time for two.
    /// The exit code is not 0 where one of the programs failed.
    pub fn script(self, release: &str) -> String {
        let mut script = format!("code=0; verifier --json {OBJECT} || code=1");
        for Tests { suite, names, skipped } in self.tests() {
            let mut line = format!("{suite} --test-threads=1 {}", names.join(" "));
            for skipped in skipped.iter().copied().chain(too_new_for(release)) {
                line.push_str(&format!(" --skip {skipped}"));
            }
            script.push_str(&format!("; {line} || code=1"));
        }
        script.push_str("; exit $code");
        script
    }
}

/// Parts of the names of tests that the kernel `release` cannot run. One whose release says nothing is to run all.
fn too_new_for(release: &str) -> impl Iterator<Item = &'static str> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (u32::MAX, 0),
    };
    LATER.iter().filter(move |(_, first)| version < *first).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::Part;

    #[test]
    fn every_part_shows_the_verifier_every_program() {
        for part in [Part::Verifier, Part::Gate, Part::Whole] {
            let script = part.script("6.1.0-57-cloud-amd64");
            assert!(script.contains("verifier --json /flannel/flannel-datapath.o || code=1"), "{script}");
            assert!(
                part.suites().iter().all(|suite| script.contains(&format!("; {suite} --test-threads=1")))
            );
        }
        assert!(Part::Verifier.suites().is_empty());
    }

    #[test]
    fn what_an_old_kernel_cannot_run_is_left_out_there_alone() {
        for (release, is_tested) in [
            ("5.10.0-46-cloud-amd64", false),
            ("5.15.0-204-generic", true),
            ("6.1.0", true),
            ("mainline", true),
        ] {
            let script = Part::Whole.script(release);
            assert_eq!(!script.contains("--skip flows::kernel"), is_tested, "{release}: {script}");
        }
    }
}
