//! What is tried in a root, in this order: each check builds on those before it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::root::Root;
use super::system::System;

pub struct Check {
    /// What holds if it passes.
    pub name: &'static str,
    /// Fails if that does not hold.
    script: &'static str,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Later checks build on it.
    Needed,
    All,
    /// Systems that package an LLVM for the linker: on others there is no second one.
    WithLlvm,
}

pub const CHECKS: &[Check] = &[
    Check {
        name: "lists of packages are old, and programs are built",
        script: include_str!("check/old-lists.sh"),
        scope: Scope::Needed,
    },
    Check {
        name: "setup can be killed while packages come",
        script: include_str!("check/killed.sh"),
        scope: Scope::Needed,
    },
    Check {
        name: "setup succeeds and leaves nothing running",
        script: include_str!("check/setup.sh"),
        scope: Scope::Needed,
    },
    Check { name: "every tool of the tests runs", script: include_str!("check/tools.sh"), scope: Scope::All },
    Check {
        name: "a second setup has nothing to do",
        script: include_str!("check/again.sh"),
        scope: Scope::All,
    },
    Check {
        name: "an archive of somebody else that is gone is said, and no more",
        script: include_str!("check/gone-archive.sh"),
        scope: Scope::All,
    },
    Check {
        name: "the kernel programs are built",
        script: include_str!("check/build-ebpf.sh"),
        scope: Scope::All,
    },
    Check { name: "the daemon is built", script: include_str!("check/daemon.sh"), scope: Scope::All },
    Check {
        name: "a full disk is named, and setup goes on once there is space",
        script: include_str!("check/full-disk.sh"),
        scope: Scope::All,
    },
    Check {
        name: "without the distribution's LLVM that of rustup serves",
        script: include_str!("check/other-llvm.sh"),
        scope: Scope::WithLlvm,
    },
    Check {
        name: "without a network the remedy is named",
        script: include_str!("check/no-network.sh"),
        scope: Scope::All,
    },
];

impl Check {
    pub fn is_for(&self, system: System) -> bool {
        self.scope != Scope::WithLlvm || system.has_llvm()
    }

    pub fn is_needed(&self) -> bool {
        self.scope == Scope::Needed
    }

    /// How long it took.
    pub fn run(&self, root: &Root) -> Result<Duration> {
        let started = Instant::now();
        root.run(&format!("{}: {}", root.system, self.name), self.script)?;
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::CHECKS;

    #[test]
    fn scripts_are_such() {
        for check in CHECKS {
            let status = Command::new("bash").args(["-n", "-c", check.script]).status().unwrap();
            assert!(status.success(), "{}", check.name);
        }
    }
}
