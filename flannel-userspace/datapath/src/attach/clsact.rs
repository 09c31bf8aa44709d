//! Filters under the clsact qdisc, for kernels without TCX. A filter is found again by its fixed priority and by its
//! handle, the flannel device's index, which differs between networks that share an underlay.

use std::fs;
use std::path::Path;

use aya::Ebpf;
use aya::pin::PinError;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier};
use aya::sys::SyscallError;
use flannel_net::qdisc::PRIORITY;
use nix::errno::Errno;

use super::{
    Attached, DatapathError, Mechanism, PinDir, Place, classifier, direction, errno, name_of, remove_pin,
};

/// Replaces our filter, or adds it, and pins its program.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &PinDir,
    place: Place,
    handle: u32,
) -> Result<Attached, DatapathError> {
    let interface = name_of(place.interface)?;
    let program = classifier(ebpf, place.program)?;
    let refused = |error| match errno(&error) {
        Some(Errno::ENOENT) => DatapathError::NoClsact { release: flannel_net::release() },
        _ => place.error(Mechanism::Clsact, error),
    };
    let qdisc = pins.qdiscs().join(place.interface.to_string());
    // A marker of an earlier daemon is replaced, because it would keep that daemon's programs and maps in memory.
    if add_qdisc(&interface).map_err(refused)? || qdisc.exists() {
        pin_program(program, &qdisc)?;
    }
    put(program, &interface, place.program, handle).map_err(refused)?;
    let name = pin_name(place, handle);
    pin_program(program, &pins.filters().join(&name))?;
    Ok(Attached { mechanism: Mechanism::Clsact, pin: name })
}

/// Name of the pin of a filter's program.
pub(super) fn pin_name(place: Place, handle: u32) -> String {
    format!("{}-{handle}", place.pin())
}

/// Pins the program, in the place of an earlier one.
fn pin_program(program: &mut SchedClassifier, path: &Path) -> Result<(), DatapathError> {
    let new = path.with_file_name("new");
    remove_pin(&new)?;
    program.pin(&new).map_err(|source| DatapathError::Pin { path: new.clone(), source })?;
    let renamed = |io_error| PinError::SyscallError(SyscallError { call: "rename", io_error });
    fs::rename(&new, path)
        .map_err(|error| DatapathError::Pin { path: path.to_owned(), source: renamed(error) })
}

/// Adds the qdisc. Whether it was not there, so that it is ours.
fn add_qdisc(interface: &str) -> Result<bool, ProgramError> {
    match tc::qdisc_add_clsact(interface).map_err(ProgramError::from) {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn put(program: &mut SchedClassifier, interface: &str, name: &str, handle: u32) -> Result<(), ProgramError> {
    let handle = TcHandle::from(handle);
    let options = NlOptions { priority: PRIORITY, handle, ..NlOptions::default() };
    let id = match program.attach_with_options(interface, direction(name), TcAttachOptions::Netlink(options))
    {
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {
            let ours = SchedClassifierLink::attached(interface, direction(name), PRIORITY, handle, None);
            program.attach_to_link(ours.map_err(ProgramError::IOError)?)?
        }
        added => added?,
    };
    // The filter outlives the daemon.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes the filter that a pin of this name describes, and the pin. A filter is gone if its interface is.
pub(super) fn detach(pins: &PinDir, pin: &str) -> Result<(), DatapathError> {
    remove_filter(pin);
    remove_pin(&pins.filters().join(pin))
}

fn remove_filter(pin: &str) {
    let mut parts = pin.rsplitn(3, '-');
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    let (Some(handle), Some(interface)) = (number(), number()) else { return };
    let (Some(program), Ok(interface)) = (parts.next(), name_of(interface)) else { return };
    // Dropping the link removes the filter; aya ignores that there is none.
    let ours =
        SchedClassifierLink::attached(&interface, direction(program), PRIORITY, TcHandle::from(handle), None);
    drop(ours);
}
