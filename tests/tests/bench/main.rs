//! The datapath is no slower, and the programs no larger, than they were.

use std::sync::{Mutex, PoisonError};

use flannel_tests::bench::{datapath, lookup};

/// One at a time: while the verifier is asked about the stack, nothing else finds a descriptor.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn ratios_to_other_paths_are_within_their_budgets() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    datapath::check().unwrap();
}

#[test]
fn programs_have_not_grown() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    lookup::check_sizes().unwrap();
}
