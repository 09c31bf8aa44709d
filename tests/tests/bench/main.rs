//! The datapath is no slower, and the programs no larger, than they were.

use flannel_tests::bench::{datapath, lookup};

#[test]
fn ratios_to_other_paths_are_within_their_budgets() {
    datapath::check().unwrap();
}

#[test]
fn programs_have_not_grown() {
    lookup::check_sizes().unwrap();
}
