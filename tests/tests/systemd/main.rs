//! The shipped unit under systemd itself, as the first process of a machine of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use flannel_tests::claim::{self, Claim};
use flannel_tests::process::Process;
use flannel_tests::{binaries, wait};
use rstest::rstest;

/// Makes the machine, and what is done on it.
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/machine.sh");
const RUN: &str = include_str!("run.sh");
/// The unit.
const UNIT: &str = include_str!("../../../packaging/systemd/flanneld.service");
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A machine, which ends when it is dropped.
struct Machine {
    process: Process,
    exchange: PathBuf,
    _directory: Claim,
}

impl Machine {
    /// Starts it, to do what `run` says with these `variables`.
    fn start(label: &str, variables: &str) -> Result<Self> {
        claim::prepare()?;
        let (exchange, directory) = claim::directory(label)?;
        for program in ["flanneld", "flannelctl"] {
            fs::copy(binaries::find(program)?, exchange.join(program))?;
        }
        let watched = UNIT.replace("WatchdogSec=60", "WatchdogSec=5");
        ensure!(watched != UNIT, "the unit has another limit");
        fs::write(exchange.join("flanneld.service"), watched)?;
        fs::write(exchange.join("run.sh"), format!("{variables}\n{RUN}"))?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--net", "--ipc", "--uts", "--cgroup"]);
        command.args(["sh", MACHINE]).arg(&exchange);
        let process = Process::spawn("a machine with systemd", command, &exchange.join("log"))?;
        Ok(Self { process, exchange, _directory: directory })
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.exchange.join(file)).unwrap_or_default()
    }

    /// What came of each step, by its name.
    fn answers(&mut self) -> Result<BTreeMap<String, String>> {
        wait::until("everything to be done", PATIENCE, || {
            self.process.check_running()?;
            ensure!(self.read("output").contains("end=1"), "{}", self.read("output"));
            Ok(())
        })?;
        let output = self.read("output");
        let answers = output.lines().filter_map(|line| line.split_once('='));
        Ok(answers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

#[rstest]
#[case::vxlan("vxlan", "flannel.1", "2")]
#[case::udp("udp", "flannel0", "1")]
fn the_unit_serves_a_host(#[case] backend: &str, #[case] device: &str, #[case] label: &str) {
    assert!(Path::new("/lib/systemd/systemd").exists(), "install the package systemd");
    let mut machine =
        Machine::start(&format!("systemd{label}"), &format!("BACKEND={backend} DEVICE={device}")).unwrap();
    let answers = machine.answers().unwrap();
    let said = format!("{}\n{}", machine.read("output"), machine.read("journal"));
    let answer = |name: &str| answers.get(name).map_or("", String::as_str);
    let waiting = answer("waiting_status");
    assert!(waiting.starts_with("not ready yet, pending: network configuration read"), "{said}");
    for (name, expected) in [
        ("waiting_state", "activating"),
        ("state", "active"),
        ("status", "ready"),
        ("restarts", "0"),
        ("watchdog", "5s"),
        ("oom", "-900"),
        ("seccomp", "2"),
        ("verify", "0"),
        ("reload", "0"),
        ("reload_without_etcd", "1"),
        ("tables", "1"),
        ("device", "1"),
        ("restarts_after_a_stop", "1"),
        ("result", "1"),
        ("leave", "0"),
        ("state_after_leave", "inactive"),
        ("leases", "0"),
        ("errors", "1"),
        ("infos", "2"),
        ("refused", "0"),
    ] {
        assert_eq!(answer(name), expected, "{name}: {said}");
    }
    assert_ne!(answer("rules"), "0", "{said}");
}
