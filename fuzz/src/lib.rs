//! What must hold of every input from outside: from the registry, from files, from the command line and from
//! the wire. libFuzzer looks for inputs that break it (`fuzz_targets`), and the tests replay what it found.

pub mod command_line;
mod file;
pub mod hosts;
pub mod incoming;
pub mod lease_key;
pub mod lease_value;
pub mod limit;
pub mod network_config;
pub mod outgoing;
pub mod peers;
pub mod state_file;
pub mod subnet_file;

use std::path::{Path, PathBuf};

use anyhow::Result;

/// One reader of inputs, and what must hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name: that of the program for libFuzzer and of the folders of inputs.
    pub name: &'static str,
    /// Reads an input; fails, or panics, where something does not hold.
    pub check: fn(&[u8]) -> Result<()>,
}

/// Every reader.
pub const ALL: [Target; 9] = [
    Target { name: "network_config", check: network_config::check },
    Target { name: "lease_key", check: lease_key::check },
    Target { name: "lease_value", check: lease_value::check },
    Target { name: "peers", check: peers::check },
    Target { name: "subnet_file", check: subnet_file::check },
    Target { name: "state_file", check: state_file::check },
    Target { name: "command_line", check: command_line::check },
    Target { name: "outgoing", check: outgoing::check },
    Target { name: "incoming", check: incoming::check },
];

impl Target {
    /// The folders of its inputs: those written by hand, and those libFuzzer found.
    #[must_use]
    pub fn folders(&self) -> [PathBuf; 2] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        ["seeds", "corpus"].map(|folder| root.join(folder).join(self.name))
    }
}

/// Gives `input` to the target with this name, as libFuzzer wants it.
///
/// # Panics
/// Something does not hold, which libFuzzer takes for a crash; or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let target = ALL.iter().find(|target| target.name == name);
    let outcome = target.map(|target| (target.check)(input));
    assert!(matches!(outcome, Some(Ok(()))), "{name}: {outcome:?}");
}
