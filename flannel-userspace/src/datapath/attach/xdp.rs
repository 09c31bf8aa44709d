//! XDP in the driver of the underlay: one program per interface, so that somebody else's keeps ours away.

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use nix::errno::Errno;
use tracing::warn;

use super::super::load::load_program;
use super::{
    Attached, DatapathError, Mechanism, PinDir, Place, errno, foreign_link, is_detached, name_of, pin_link,
    pinned, remove_pin,
};

/// Attaches the program, or says why the packets are left to TC.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &PinDir,
    place: Place,
) -> Result<Option<Attached>, DatapathError> {
    load_program(ebpf, place.program)?;
    let missing =
        || DatapathError::Program { program: place.program.to_owned(), source: ProgramError::NotLoaded };
    let program: &mut Xdp =
        ebpf.program_mut(place.program).and_then(|program| program.try_into().ok()).ok_or_else(missing)?;
    let attached = Attached { mechanism: Mechanism::Xdp, pin: place.pin() };
    let pin = pins.links().join(&attached.pin);
    if let Some(link) = pinned(&pin)? {
        let link = XdpLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?;
        match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
            Ok(_) => return Ok(Some(attached)),
            Err(error) if is_detached(&error) => remove_pin(&pin)?,
            Err(error) => return Err(place.error(Mechanism::Xdp, error)),
        }
    }
    let link =
        program.attach_to_if_index(place.interface, XdpMode::Driver).and_then(|id| program.take_link(id));
    let link = match link {
        Ok(link) => link,
        Err(error) => {
            leave_to_tc(place, &error)?;
            return Ok(None);
        }
    };
    pin_link(FdLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?, &pin)?;
    Ok(Some(attached))
}

fn leave_to_tc(place: Place, error: &ProgramError) -> Result<(), DatapathError> {
    let reason = if errno(error) == Some(Errno::EBUSY) {
        "another XDP program is attached"
    } else {
        "the driver takes no native XDP program"
    };
    warn!(interface = name_of(place.interface)?, %error, "{reason}: decapsulating at TC instead");
    Ok(())
}
