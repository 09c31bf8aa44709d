//! podman on a host, with its own storage, and a bridge network whose subnet is the host's lease.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::engine::Engine;
use super::machine::Machine;
use crate::network::{BRIDGE, Host, SubnetFile};

/// The name of the network.
const NETWORK: &str = "flannel";

/// podman, which has no daemon.
#[derive(Debug)]
pub struct Podman {
    machine: Machine,
    /// Whether it leaves the addresses of containers to whoever masquerades: by CNI plugins it can be told to.
    pub is_plain: bool,
}

impl Podman {
    /// Makes the network as the subnet file has it, and the image.
    ///
    /// # Errors
    /// podman is missing, or refuses.
    pub fn start(host: &Host, file: &SubnetFile) -> Result<Self> {
        let mut podman = Self { machine: Machine::start(host, "podman")?, is_plain: false };
        let networks = podman.machine.directory().join("networks");
        fs::create_dir(&networks)?;
        podman.is_plain = podman.call(&["info", "--format", "{{.Host.NetworkBackend}}"])?.trim() == "cni";
        // `podman network create` refuses a subnet of which the host has an address, as flannel's device has.
        let (name, network) = if podman.is_plain {
            ("flannel.conflist", of_plugins(file))
        } else {
            ("flannel.json", of_netavark(file))
        };
        fs::write(networks.join(name), network.to_string())?;
        podman.import()?;
        Ok(podman)
    }
}

/// The network for podman up to version 4.
fn of_plugins(file: &SubnetFile) -> Value {
    json!({
        "cniVersion": "0.4.0", "name": NETWORK,
        "plugins": [{
            "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": !file.ip_masq, "mtu": file.mtu,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": file.subnet.to_string(), "gateway": file.bridge}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// The network for podman by netavark.
fn of_netavark(file: &SubnetFile) -> Value {
    json!({
        "name": NETWORK, "id": "f1".repeat(32), "driver": "bridge", "network_interface": BRIDGE,
        "created": "2026-01-01T00:00:00Z", "subnets": [{"subnet": file.subnet.to_string(), "gateway": file.bridge}],
        "ipv6_enabled": false, "internal": false, "dns_enabled": false, "options": {"mtu": file.mtu.to_string()},
        "ipam_options": {"driver": "host-local"},
    })
}

impl Engine for Podman {
    fn command(&self) -> Command {
        let mut command = self.machine.command("podman");
        for (flag, place) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
            ("--network-config-dir", "networks"),
        ] {
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
