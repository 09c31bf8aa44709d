//! Inputs from outside that were written by hand or found by fuzzing: what must hold of every input holds of
//! each of them. `fuzz/README.md` says how to look for more.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use flannel_fuzz::{ALL, Target};
use rstest::rstest;

/// The files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} holds no inputs", folder.display());
    files.sort();
    files
}

/// What does not hold of the input in `file`, if anything.
fn fault(target: &Target, file: &Path) -> Option<String> {
    let input = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let reason = match catch_unwind(|| (target.check)(&input)) {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no text"))
        }
    };
    Some(format!("{}: {reason}", file.display()))
}

#[rstest]
#[case::network_config("network_config")]
#[case::lease_key("lease_key")]
#[case::lease_value("lease_value")]
#[case::peers("peers")]
#[case::subnet_file("subnet_file")]
#[case::state_file("state_file")]
#[case::command_line("command_line")]
#[case::outgoing("outgoing")]
#[case::incoming("incoming")]
fn everything_holds_of_every_input(#[case] name: &str) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let inputs: Vec<PathBuf> = target.folders().iter().flat_map(|folder| files(folder)).collect();
    let faults: Vec<String> = inputs.iter().filter_map(|file| fault(target, file)).collect();
    assert!(faults.is_empty(), "{} of {} inputs:\n{}", faults.len(), inputs.len(), faults.join("\n"));
}

#[test]
fn every_target_is_replayed() {
    let text = include_str!("main.rs");
    for Target { name, .. } in ALL {
        assert!(text.contains(&format!("#[case::{name}(")), "{name} is not among the cases");
    }
}
