//! The datapath is no slower than it was.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use flannel_tests::bench::datapath::check;

#[test]
fn ratios_to_other_paths_are_within_their_budgets() {
    check().unwrap();
}
