//! Attaching of programs, so that they outlive the daemon and live with programs of others.
//!
//! TCX and XDP links are pinned as `links/<program>-<interface index>`. A link whose interface is gone
//! stays behind a pin, detached; it is recognised by that and replaced. A filter under clsact cannot be
//! pinned; it is found again by its fixed priority and by its handle, which is the flannel device's index.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use nix::errno::Errno;
use tracing::{info, warn};

use super::load::load_program;
use super::{DatapathError, HookChoice, PinDir, Spec, Tunnel};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link (kernel 6.6).
    Tcx,
    /// A filter under the clsact qdisc.
    Clsact,
    /// An XDP link in the driver.
    Xdp,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
        })
    }
}

/// A program in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the program.
    pub program: &'static str,
    /// Name of the interface.
    pub interface: String,
    /// How it is attached.
    pub mechanism: Mechanism,
}

/// A place for a TC program.
struct Place<'a> {
    program: &'static str,
    interface: &'a str,
    index: u32,
    direction: TcAttachType,
}

/// Priority of our filters under clsact: unlikely to be anyone else's.
const PRIORITY: u16 = 0x0f1a;

pub(super) fn attach(ebpf: &mut Ebpf, pins: &PinDir, spec: &Spec) -> Result<Vec<Attachment>, DatapathError> {
    let mut attachments = Vec::new();
    // Who receives comes first, so that no answer to a packet sent finds nobody.
    for place in places(spec) {
        let mechanism = attach_tc(ebpf, pins, spec, &place)?;
        attachments.push(Attachment {
            program: place.program,
            interface: place.interface.to_owned(),
            mechanism,
        });
    }
    attachments.extend(attach_xdp(ebpf, pins, spec)?);
    for attachment in &attachments {
        info!(program = attachment.program, interface = attachment.interface, by = %attachment.mechanism, "attached");
    }
    Ok(attachments)
}

fn places(spec: &Spec) -> Vec<Place<'_>> {
    let underlay = |program| Place {
        program,
        interface: &spec.underlay,
        index: spec.node.underlay,
        direction: TcAttachType::Ingress,
    };
    let device =
        |program, direction| Place { program, interface: &spec.device, index: spec.node.device, direction };
    match spec.tunnel {
        Tunnel::Udp => vec![underlay("udp_decap"), device("udp_encap", TcAttachType::Egress)],
        Tunnel::Vxlan => vec![
            underlay("vxlan_decap"),
            device("vxlan_device", TcAttachType::Ingress),
            device("vxlan_encap", TcAttachType::Egress),
        ],
    }
}

fn attach_tc(
    ebpf: &mut Ebpf,
    pins: &PinDir,
    spec: &Spec,
    place: &Place<'_>,
) -> Result<Mechanism, DatapathError> {
    let program = classifier(ebpf, place.program)?;
    let pin = link_path(pins, place.program, place.index);
    if spec.hook == HookChoice::Clsact {
        attach_clsact(program, spec, place)?;
        remove_pin(&pin)?;
        return Ok(Mechanism::Clsact);
    }
    match attach_tcx(program, &pin, place) {
        Ok(()) => {
            detach_clsact(spec, place);
            Ok(Mechanism::Tcx)
        }
        Err(DatapathError::Attach { source, .. }) if spec.hook != HookChoice::Tcx && lacks_tcx(&source) => {
            info!(interface = place.interface, "the kernel has no TCX (6.6 and newer): using clsact");
            attach_clsact(program, spec, place)?;
            Ok(Mechanism::Clsact)
        }
        Err(error) => Err(error),
    }
}

/// Replaces the program of the pinned link, or attaches it first of all and pins the link.
fn attach_tcx(program: &mut SchedClassifier, pin: &Path, place: &Place<'_>) -> Result<(), DatapathError> {
    let failed = |source| place.error(Mechanism::Tcx, source);
    if let Some(link) = pinned(pin)? {
        let link = SchedClassifierLink::try_from(link).map_err(|error| foreign_link(pin, &error))?;
        match program.attach_to_link(link) {
            Ok(_) => return Ok(()),
            Err(error) if is_detached(&error) => remove_pin(pin)?,
            Err(error) => return Err(failed(error)),
        }
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(place.interface, place.direction, order).map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let link = FdLink::try_from(link).map_err(|error| foreign_link(pin, &error))?;
    link.pin(pin).map_err(|source| DatapathError::Pin { path: pin.to_owned(), source })?;
    Ok(())
}

/// Replaces our filter, or adds it.
fn attach_clsact(program: &mut SchedClassifier, spec: &Spec, place: &Place<'_>) -> Result<(), DatapathError> {
    let failed = |source| place.error(Mechanism::Clsact, source);
    match tc::qdisc_add_clsact(place.interface) {
        Err(error) if !matches!(error, tc::TcError::AlreadyAttached) => {
            return Err(failed(ProgramError::TcError(error)));
        }
        _ => {}
    }
    let options = NlOptions { priority: PRIORITY, handle: filter_handle(spec), ..NlOptions::default() };
    let added =
        program.attach_with_options(place.interface, place.direction, TcAttachOptions::Netlink(options));
    let id = match added {
        Ok(id) => id,
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {
            let link = our_filter(spec, place).map_err(|error| failed(ProgramError::IOError(error)))?;
            program.attach_to_link(link).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    // The filter stays when the daemon goes.
    std::mem::forget(program.take_link(id).map_err(failed)?);
    Ok(())
}

/// Takes away our filter of an earlier start that used clsact.
fn detach_clsact(spec: &Spec, place: &Place<'_>) {
    // Dropping the link removes the filter; where there is none, the kernel says so to nobody.
    drop(our_filter(spec, place));
}

fn our_filter(spec: &Spec, place: &Place<'_>) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(place.interface, place.direction, PRIORITY, filter_handle(spec), None)
}

/// The handle tells networks apart that share an underlay.
fn filter_handle(spec: &Spec) -> TcHandle {
    TcHandle::from(spec.node.device)
}

/// Attaches the XDP program if it is wanted; takes it away if it is not.
fn attach_xdp(ebpf: &mut Ebpf, pins: &PinDir, spec: &Spec) -> Result<Option<Attachment>, DatapathError> {
    let name = match spec.tunnel {
        Tunnel::Udp => "udp_xdp",
        Tunnel::Vxlan => "vxlan_xdp",
    };
    let pin = link_path(pins, name, spec.node.underlay);
    if spec.hook != HookChoice::Xdp {
        remove_pin(&pin)?;
        return Ok(None);
    }
    load_program(ebpf, name)?;
    let program = xdp(ebpf, name)?;
    match attach_native(program, &pin, spec.node.underlay)? {
        Ok(()) => Ok(Some(Attachment {
            program: name,
            interface: spec.underlay.clone(),
            mechanism: Mechanism::Xdp,
        })),
        Err(error) => {
            let reason = if errno(&error) == Some(Errno::EBUSY) {
                "another XDP program is attached"
            } else {
                "the driver takes no native XDP program"
            };
            warn!(interface = spec.underlay, %error, "{reason}: decapsulating at TC instead");
            Ok(None)
        }
    }
}

/// The inner result is the kernel's answer, for which there is a way around.
fn attach_native(
    program: &mut Xdp,
    pin: &Path,
    underlay: u32,
) -> Result<Result<(), ProgramError>, DatapathError> {
    if let Some(link) = pinned(pin)? {
        let link = XdpLink::try_from(link).map_err(|error| foreign_link(pin, &error))?;
        match program.attach_to_link(link) {
            Ok(_) => return Ok(Ok(())),
            Err(error) if is_detached(&error) => remove_pin(pin)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    let attached = program.attach_to_if_index(underlay, XdpMode::Driver).and_then(|id| program.take_link(id));
    let link = match attached {
        Ok(link) => link,
        Err(error) => return Ok(Err(error)),
    };
    let link = FdLink::try_from(link).map_err(|error| foreign_link(pin, &error))?;
    link.pin(pin).map_err(|source| DatapathError::Pin { path: pin.to_owned(), source })?;
    Ok(Ok(()))
}

impl Place<'_> {
    fn error(&self, mechanism: Mechanism, source: ProgramError) -> DatapathError {
        DatapathError::Attach {
            program: self.program,
            interface: self.interface.to_owned(),
            mechanism,
            source,
        }
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    let missing = || DatapathError::Program { program: name.to_owned(), source: ProgramError::NotLoaded };
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DatapathError> {
    let missing = || DatapathError::Program { program: name.to_owned(), source: ProgramError::NotLoaded };
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

fn link_path(pins: &PinDir, program: &str, interface: u32) -> PathBuf {
    pins.links().join(format!("{program}-{interface}"))
}

fn pinned(pin: &Path) -> Result<Option<FdLink>, DatapathError> {
    if !pin.exists() {
        return Ok(None);
    }
    PinnedLink::from_pin(pin).map(|link| Some(FdLink::from(link))).map_err(|error| foreign_link(pin, &error))
}

fn foreign_link(pin: &Path, error: &LinkError) -> DatapathError {
    DatapathError::ForeignPin {
        path: pin.to_owned(),
        difference: format!("it is no link of the right type ({error})"),
    }
}

fn remove_pin(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Unpin { path: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Whether the link's interface is gone, or somebody has detached the link.
fn is_detached(error: &ProgramError) -> bool {
    errno(error) == Some(Errno::ENOLINK)
}

/// Whether the kernel knows no TCX links: it refuses the attach type.
fn lacks_tcx(error: &ProgramError) -> bool {
    errno(error) == Some(Errno::EINVAL)
}

fn errno(error: &ProgramError) -> Option<Errno> {
    let raw = match error {
        ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        ProgramError::NetlinkError(netlink) => netlink.raw_os_error(),
        ProgramError::TcError(tc::TcError::NetlinkError(netlink)) => netlink.raw_os_error(),
        ProgramError::IOError(io) => io.raw_os_error(),
        _ => None,
    };
    raw.map(Errno::from_raw)
}
