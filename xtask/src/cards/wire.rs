//! The wire between two guests, in a network namespace that ends with the thread that made it and its children, however
//! they end.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};

use crate::{privilege, step};

/// Largest packet that the wire takes.
const MTU: &str = "9000";
/// What the kernel makes TAP devices with.
const TUN: &str = "/dev/net/tun";

/// An end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The guest that does the checks.
    Near,
    Far,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Near, Self::Far];

    /// Its name, and that of its TAP device.
    pub const fn port(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// The Ethernet address of its guest.
    pub const fn mac(self) -> &'static str {
        match self {
            Self::Near => "52:54:00:00:00:11",
            Self::Far => "52:54:00:00:00:12",
        }
    }
}

/// Fails where a wire cannot be made, before anything long is begun.
pub fn check() -> Result<()> {
    if !privilege::is_root() {
        bail!("guests are joined in a network namespace, which needs root: run it as root");
    }
    if fs::metadata(TUN).is_err() {
        bail!("there is no {TUN}, by which guests are joined: load the module tun (modprobe tun)");
    }
    Ok(())
}

/// Does `work` in a namespace of its own where the wire is: two switches, each with the TAP device of a guest, and a
/// cable between them.
pub fn with<T: Send>(has_verdicts: bool, work: impl FnOnce() -> T + Send) -> Result<T> {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        make(has_verdicts)?;
        Ok(work())
    };
    thread::scope(|scope| scope.spawn(enter).join()).map_err(|_| anyhow!("the work on the wire panicked"))?
}

fn make(has_verdicts: bool) -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("link add cable-near mtu {MTU} type veth peer name cable-far mtu {MTU}"))?;
    for side in Side::BOTH {
        let port = side.port();
        ip(&format!("link add switch-{port} type bridge"))?;
        ip(&format!("tuntap add dev {port} mode tap multi_queue vnet_hdr"))?;
        for port in [port.to_owned(), format!("cable-{port}")] {
            ip(&format!("link set {port} mtu {MTU} master switch-{} up", side.port()))?;
        }
        ip(&format!("link set switch-{port} mtu {MTU} up"))?;
        if has_verdicts {
            // Receive offload then checks every datagram, also where it has nothing to merge it with
            // (udp_gro_receive), and TAP devices tell guests so. What comes over a cable goes through it if the cable
            // takes no super-packets (veth_skb_is_eligible_for_gro).
            run("ethtool", &format!("-K cable-{port} gro on rx-udp-gro-forwarding on tso off"))?;
        }
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

/// Runs a program in the namespace of this thread.
fn run(program: &str, arguments: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    let output = command.output().with_context(|| format!("cannot run {}", step::shown(&command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", step::shown(&command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, run, with};

    #[test]
    fn the_wire_is_in_a_namespace_of_its_own() {
        if let Err(error) = check() {
            return assert!(
                format!("{error:#}").contains("run it as root") || format!("{error:#}").contains("tun")
            );
        }
        let inside = with(true, || run("ip", "link show dev near master switch-near")).unwrap();
        inside.unwrap();
        assert!(run("ip", "link show dev switch-near").is_err(), "it is here");
    }
}
