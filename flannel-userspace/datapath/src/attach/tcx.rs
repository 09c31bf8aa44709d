//! TCX links (kernel 6.6): several programs of several owners at one hook, in an order.

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier};
use nix::errno::Errno;

use super::{
    Attached, DatapathError, Mechanism, PinDir, Place, classifier, direction, errno, foreign_link,
    is_detached, name_of, pin_link, pinned, remove_pin,
};

/// Replaces the program of the pinned link, or attaches it before all others and pins the link.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &PinDir, place: Place) -> Result<Attached, DatapathError> {
    let program = classifier(ebpf, place.program)?;
    let attached = Attached { mechanism: Mechanism::Tcx, pin: place.pin() };
    let pin = pins.links().join(&attached.pin);
    if let Some(link) = pinned(&pin)? {
        let link = SchedClassifierLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?;
        match replace(program, link) {
            Ok(()) => return Ok(attached),
            Err(error) if is_detached(&error) => remove_pin(&pin)?,
            Err(error) => return Err(place.error(Mechanism::Tcx, error)),
        }
    }
    let interface = name_of(place.interface)?;
    let link = add(program, &interface, place).map_err(|error| place.error(Mechanism::Tcx, error))?;
    pin_link(FdLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?, &pin)?;
    Ok(attached)
}

/// The pin keeps the link. The program must not hold it as well, because then removing the pin would not detach it.
fn replace(program: &mut SchedClassifier, link: SchedClassifierLink) -> Result<(), ProgramError> {
    let id = program.attach_to_link(link)?;
    program.take_link(id).map(drop)
}

fn add(
    program: &mut SchedClassifier,
    interface: &str,
    place: Place,
) -> Result<SchedClassifierLink, ProgramError> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, direction(place.program), first)?;
    program.take_link(id)
}

/// Whether the kernel knows no TCX links: it refuses the attach type.
pub(super) fn is_unknown(error: &ProgramError) -> bool {
    errno(error) == Some(Errno::EINVAL)
}
