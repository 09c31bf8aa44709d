//! podman on a host, with its own storage, and a bridge network whose subnet is the host's lease.

use std::process::Command;

use anyhow::Result;

use super::engine::Engine;
use super::machine::Machine;
use crate::network::{Host, SubnetFile};

/// The name of the network. podman names its bridge.
const NETWORK: &str = "flannel";
/// The bridges that podman makes first: by CNI plugins up to version 4, by netavark since.
const BRIDGES: &str = "cni-podman1,podman1";

/// podman, which has no daemon.
#[derive(Debug)]
pub struct Podman {
    machine: Machine,
}

impl Podman {
    /// The flag by which `flanneld` knows its bridge.
    #[must_use]
    pub fn flag() -> String {
        format!("--pod-bridges={BRIDGES}")
    }

    /// Makes the network as the subnet file has it, and the image.
    ///
    /// # Errors
    /// podman is missing, or refuses.
    pub fn start(host: &Host, file: &SubnetFile) -> Result<Self> {
        let podman = Self { machine: Machine::start(host, "podman")? };
        std::fs::create_dir(podman.machine.directory().join("networks"))?;
        let (subnet, gateway) = (file.subnet.to_string(), file.bridge.to_string());
        let mtu = format!("mtu={}", file.mtu);
        podman.call(&[
            "network", "create", "--subnet", &subnet, "--gateway", &gateway, "--opt", &mtu, "--disable-dns", NETWORK,
        ])?;
        podman.import()?;
        Ok(podman)
    }
}

impl Engine for Podman {
    fn command(&self) -> Command {
        let mut command = self.machine.command("podman");
        for (flag, place) in
            [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--network-config-dir", "networks")]
        {
            command.arg(flag).arg(self.machine.directory().join(place));
        }
        command.args(["--runtime", "crun", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn network(&self) -> Option<&str> {
        Some(NETWORK)
    }
}
