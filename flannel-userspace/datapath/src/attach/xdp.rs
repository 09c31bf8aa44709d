//! XDP of the underlay: one program per interface, so that somebody else's keeps ours away.
//!
//! The program at TC is attached as well, and does the whole work on packets that no XDP program has decapsulated. So
//! XDP may be attached and detached, for instance when another mode is chosen, and no packet is lost.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use flannel_model::error::Chain;
use flannel_net::xdp_refusal;
use nix::errno::Errno;
use tracing::{info, warn};

use super::super::load::load_program;
use super::inspect::pinned_programs;
use super::{
    Attached, Choice, DatapathError, Decapsulation, HookChoice, Mechanism, Offer, PinDir, Place, Spec,
    choose, detach_link, errno, foreign_link, is_detached, name_of, pin_link, pinned, remove_pin,
};

/// How XDP decapsulates: by the operator's choice, or by the rule.
pub(super) fn mechanism(spec: &Spec, pins: &PinDir) -> Result<Option<Mechanism>, DatapathError> {
    let Some(format) = spec.format else { return Ok(None) };
    if !spec.has_ethernet() {
        return Ok(None);
    }
    Ok(match spec.hook {
        HookChoice::Xdp => Some(Mechanism::Xdp),
        HookChoice::XdpGeneric => Some(Mechanism::XdpGeneric),
        HookChoice::Tcx | HookChoice::Clsact => None,
        HookChoice::Auto => {
            let underlay = spec.node.underlay;
            let Choice { by, because } = choose(&Offer::of(underlay, pins.path())?, format);
            let interface = name_of(underlay).unwrap_or_default();
            info!(interface, %by, because, "chose the hook of decapsulation");
            (by == Decapsulation::Xdp).then_some(Mechanism::Xdp)
        }
    })
}

/// Attaches the program, or says why the packets are left to TC.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &PinDir,
    place: Place,
    mechanism: Mechanism,
) -> Result<Option<Attached>, DatapathError> {
    if let Err(error) = load_program(ebpf, place.program) {
        warn!(error = %Chain(&error), "decapsulating at TC instead of XDP");
        return Ok(None);
    }
    let missing = || DatapathError::Program {
        program: place.program.to_owned(),
        source: ProgramError::NotLoaded.into(),
    };
    let program: &mut Xdp =
        ebpf.program_mut(place.program).and_then(|program| program.try_into().ok()).ok_or_else(missing)?;
    clear(pins, place)?;
    let attached = Attached { mechanism, pin: place.pin() };
    let pin = pins.links().join(&attached.pin);
    if let Some(link) = pinned(&pin)? {
        let link = XdpLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?;
        match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
            Ok(_) => return Ok(Some(attached)),
            Err(error) if is_detached(&error) => remove_pin(&pin)?,
            Err(error) => return Err(place.error(mechanism, error)),
        }
    }
    let mode = if mechanism == Mechanism::XdpGeneric { XdpMode::Skb } else { XdpMode::Driver };
    let link = program.attach_to_if_index(place.interface, mode).and_then(|id| program.take_link(id));
    let link = match link {
        Ok(link) => link,
        Err(error) => {
            let words = (mechanism == Mechanism::Xdp).then(|| driver_says(program, place)).flatten();
            leave_to_tc(place, mechanism, &error, words.as_deref())?;
            return Ok(None);
        }
    };
    pin_link(FdLink::try_from(link).map_err(|error| foreign_link(&pin, &error))?, &pin)?;
    Ok(Some(attached))
}

/// Detaches what an earlier daemon of ours attached in another mode or for another backend: an interface has room for
/// one.
fn clear(pins: &PinDir, place: Place) -> Result<(), DatapathError> {
    for other in pinned_programs(pins.path())? {
        let is_xdp = matches!(other.by.mechanism(), Mechanism::Xdp | Mechanism::XdpGeneric);
        if !is_xdp || other.interface != place.interface || other.program == place.program {
            continue;
        }
        let link = format!("{}-{}", other.program, other.interface);
        info!(link, by = %other.by.mechanism(), "detaching");
        detach_link(&pins.links().join(&link))?;
    }
    Ok(())
}

/// The driver's reason for refusing a program. It is only for the log: a missing reason is no error.
fn driver_says(program: &Xdp, place: Place) -> Option<String> {
    xdp_refusal(place.interface, program.fd().ok()?.as_fd()).ok().flatten()
}

fn leave_to_tc(
    place: Place,
    mechanism: Mechanism,
    error: &ProgramError,
    driver_says: Option<&str>,
) -> Result<(), DatapathError> {
    let reason = match errno(error) {
        // Native and generic XDP also exclude each other.
        Some(Errno::EBUSY | Errno::EEXIST) => "another XDP program is attached",
        _ if mechanism == Mechanism::XdpGeneric => "the interface takes no generic XDP program",
        _ => "the driver takes no native XDP program",
    };
    let interface = name_of(place.interface)?;
    warn!(interface, %error, driver_says, "{reason}: decapsulating at TC instead");
    Ok(())
}
