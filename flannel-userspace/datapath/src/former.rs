//! Programs of an earlier daemon that can be kept up to date no more, because this one is refused eBPF. They are taken
//! away, and the kernel, which has all it needs to reach the peers, forwards alone.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::attach::{detach, program_pins};
use super::bpffs::names_in;
use super::{DatapathError, PinDir, sys};

/// The program that drops what no other program has seen.
const GUARD: &str = "vxlan_device-";
/// A link ends some time after its pin is gone (`bpf_link_put_deferred`).
const DEFERRED: Duration = Duration::from_millis(50);

/// Detaches every program pinned in `pins`, and removes their maps. A link ends with its pin and a filter by netlink, so
/// this takes no rights for eBPF. Qdiscs that were added for filters stay, with their marks: to remove one, and to add it
/// again, loses packets. Returns whether there was anything.
///
/// # Errors
/// A pin cannot be removed.
pub fn give_up(pins: &PinDir) -> Result<bool, DatapathError> {
    let (guards, others): (Vec<String>, Vec<String>) =
        program_pins(pins)?.into_iter().partition(|name| name.starts_with(GUARD));
    let mut has_any = !(guards.is_empty() && others.is_empty());
    // Between the receiver's end and its own it would drop packets.
    for guard in guards {
        // Where bpf() is refused altogether, the pin alone has to do.
        let is_detached = sys::detach(&pins.links().join(&guard)).is_ok();
        detach(pins, &guard)?;
        if !is_detached {
            sleep(DEFERRED);
        }
    }
    for program in others {
        detach(pins, &program)?;
    }
    for maps in pins.other_maps()?.into_iter().chain([PinDir::maps(pins.path())]) {
        if !names_in(&maps)?.is_empty() {
            has_any = true;
            fs::remove_dir_all(&maps).map_err(|source| DatapathError::Unpin { path: maps, source })?;
        }
    }
    Ok(has_any)
}
