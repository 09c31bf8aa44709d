//! Attaches programs so that they outlive the daemon and coexist with programs of others.
//!
//! TCX and XDP links are pinned as `links/<program>-<interface index>`. A link whose interface is gone stays behind a
//! pin, detached; it is recognised by that and replaced. A filter under clsact cannot be pinned: its program is, as
//! `filters/<program>-<interface index>-<handle>`, which says where the filter is.

mod choice;
mod clsact;
mod foreign;
mod inspect;
mod tcx;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};
use nix::errno::Errno;
use tracing::{debug, info, warn};

use flannel_common::maps::Node;
use flannel_model::error::Chain;
use flannel_net::Uplink;

use self::foreign::Side;
use super::bpffs::names_in;
use super::{Arrival, DatapathError, Format, HookChoice, PinDir, Spec, Support, interface_name};
use crate::sys;
pub use choice::{Choice, Decapsulation, Offer, choose};
pub use inspect::{Pinned, PinnedAs, is_ingress, is_linked, pinned_programs, tcx_programs, wanted_places};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link (kernel 6.6).
    Tcx,
    /// A filter under the clsact qdisc.
    Clsact,
    /// An XDP link in the driver.
    Xdp,
    /// An XDP link in the network stack.
    XdpGeneric,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        })
    }
}

/// A place for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    program: &'static str,
    /// Interface index.
    interface: u32,
}

/// A program in its place: how it is attached, and its pin.
struct Attached {
    mechanism: Mechanism,
    pin: String,
}

/// Keeps the loaded programs in their places.
pub(super) struct Attacher {
    ebpf: Ebpf,
    pins: Arc<PinDir>,
    spec: Spec,
    /// How XDP is to decapsulate, if it is.
    xdp: Option<Mechanism>,
    bridges: BTreeSet<u32>,
    /// Ports of pods, by their interface indexes.
    pods: BTreeSet<u32>,
    /// Interfaces with programs of others, which was reported.
    left_alone: BTreeSet<u32>,
    /// Uplinks besides the underlay that take no program, which was reported.
    refused: BTreeSet<u32>,
    attached: BTreeMap<Place, Attached>,
    /// Whether the programs of another build stay in the places for now.
    waits: bool,
}

impl Attacher {
    /// Attaches what `spec` asks for and detaches what an earlier one left. Programs in their places are replaced
    /// there, so that no packet misses a program; so are those that change from TCX to clsact or back, except the guard
    /// of the flannel device. Which bridges and pods are served is not known yet: the former ones stay. Programs whose
    /// maps have another layout stay until [`Attacher::take_over`]: the new maps hold no peer yet. Where the kernel has
    /// forwarded alone, it goes on until then.
    pub(super) fn start(
        ebpf: Ebpf,
        pins: Arc<PinDir>,
        spec: Spec,
        arrival: Arrival,
    ) -> Result<Self, DatapathError> {
        let (bridges, pods) = (served(&pins, "bridge-")?, served(&pins, "pod_out-")?);
        let is_first = arrival == Arrival::WithPeers && program_pins(&pins)?.is_empty();
        let waits = is_first || !pins.other_maps()?.is_empty();
        let (left_alone, attached) = (BTreeSet::new(), BTreeMap::new());
        let xdp = xdp::mechanism(&spec, &pins)?;
        let refused = BTreeSet::new();
        let mut attacher =
            Self { ebpf, pins, spec, xdp, bridges, pods, left_alone, refused, attached, waits };
        attacher.hold()?;
        Ok(attacher)
    }

    /// Attaches the programs, and removes maps of another layout.
    pub(super) fn take_over(&mut self) -> Result<(), DatapathError> {
        if !self.waits {
            return Ok(());
        }
        self.put_all()?;
        for maps in self.pins.other_maps()? {
            info!(maps = %maps.display(), "programs with maps of another layout are replaced");
            fs::remove_dir_all(&maps).map_err(|source| DatapathError::Unpin { path: maps, source })?;
        }
        self.waits = false;
        Ok(())
    }

    /// Whether that changed something.
    pub(super) fn serve(
        &mut self,
        bridges: &BTreeSet<u32>,
        pods: &BTreeMap<u32, u32>,
    ) -> Result<bool, DatapathError> {
        let (bridges, pods) = self.without_foreign(bridges, pods);
        if self.bridges == bridges && self.pods == pods {
            return Ok(false);
        }
        (self.bridges, self.pods) = (bridges, pods);
        self.hold().map(|()| true)
    }

    /// Packets that bypass the stack would bypass programs of others too: those at the pod's port, at its bridge, at the
    /// flannel device, and at the ingress of the underlay if routes lead to peers.
    fn without_foreign(
        &mut self,
        bridges: &BTreeSet<u32>,
        pods: &BTreeMap<u32, u32>,
    ) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let Node { device, underlay, .. } = self.spec.node;
        let arrivals = self.spec.routes.then_some((underlay, Side::Ingress));
        let ways = [Some((device, Side::Both)).filter(|_| device != 0), arrivals].into_iter().flatten();
        let ends = bridges.iter().chain(pods.keys()).map(|interface| (*interface, Side::Both));
        let foreign: BTreeSet<u32> =
            ways.chain(ends).filter(|(at, side)| foreign::is_at(*at, *side)).map(|(at, _)| at).collect();
        for at in foreign.difference(&self.left_alone) {
            let interface = name_of(*at).unwrap_or_default();
            info!(interface, "no bypass for packets that pass here: another program is attached");
        }
        let is_free = |interface: &u32| !foreign.contains(interface);
        let bridges = bridges.iter().copied().filter(is_free).collect();
        let pods = pods.iter().filter(|(port, bridge)| {
            [port, bridge, &&device, &&underlay].into_iter().all(|interface| is_free(interface))
        });
        let pods = pods.map(|(port, _)| *port).collect();
        self.left_alone = foreign;
        (bridges, pods)
    }

    /// The same, with packets of the tunnel received at `uplinks` from now on.
    pub(super) fn receive_at(&mut self, uplinks: &BTreeSet<Uplink>) -> Result<(), DatapathError> {
        self.spec.uplinks.clone_from(uplinks);
        self.hold()
    }

    /// Attaches or replaces every program, and detaches the others.
    pub(super) fn hold(&mut self) -> Result<(), DatapathError> {
        if self.waits { Ok(()) } else { self.put_all() }
    }

    /// A place that fails does not affect the others; the first error is returned.
    fn put_all(&mut self) -> Result<(), DatapathError> {
        let (mut attached, mut outcome) = (BTreeMap::new(), Ok(()));
        for place in self.places() {
            match self.put(place) {
                Ok(now) => attached.extend(now.map(|now| (place, now))),
                Err(error) => {
                    attached.extend(self.attached.remove(&place).map(|former| (place, former)));
                    outcome = outcome.and(Err(error));
                }
            }
        }
        self.attached = attached;
        outcome?;
        self.detach_others()
    }

    fn put(&mut self, place: Place) -> Result<Option<Attached>, DatapathError> {
        let before = self.attached.get(&place).map(|before| before.mechanism);
        // Two of them in a row would fail: the first clears the mark, and the second drops packets without it.
        if before.is_none()
            && place.program == "vxlan_device"
            && let Some(by) = self.mechanism_at(place)
        {
            self.detach_former(place, by)?;
        }
        let attached = self.attach_where_possible(place)?;
        if let Some(now) = attached.as_ref().filter(|now| before != Some(now.mechanism)) {
            self.detach_former(place, now.mechanism)?;
            let interface = name_of(place.interface).unwrap_or_default();
            info!(program = place.program, interface, by = %now.mechanism, "attached");
        }
        Ok(attached)
    }

    /// Whether all links are still attached. The kernel announces interfaces that are gone.
    pub(super) fn is_whole(&self) -> bool {
        let is_lost = |place: &Place, attached: &Attached| {
            attached.mechanism != Mechanism::Clsact
                && interface_name(place.interface).is_some()
                && is_pin_detached(&self.pins.links().join(&attached.pin))
        };
        !self.attached.iter().any(|(place, attached)| is_lost(place, attached))
    }

    fn places(&self) -> Vec<Place> {
        let Spec { format, node, uplinks, .. } = &self.spec;
        let place = |(program, interface)| Place { program, interface };
        let mut places: Vec<Place> = wanted_places(*format, node, uplinks).into_iter().map(place).collect();
        places.extend(self.xdp_program().map(|(program, _)| place((program, node.underlay))));
        if format.is_some() {
            places.extend(self.bridges.iter().map(|bridge| Place { program: "bridge", interface: *bridge }));
        }
        if self.spec.has_bypass() {
            let ports = self.pods.iter().flat_map(|pod| ["pod_in", "pod_out"].map(|program| (program, *pod)));
            places.extend(ports.map(|(program, interface)| Place { program, interface }));
            // They read Ethernet headers.
            if self.spec.routes && self.spec.has_ethernet() {
                places.extend(["direct_out", "direct_in"].map(|program| place((program, node.underlay))));
            }
        }
        places
    }

    /// The program that decapsulates by XDP, if one does, and how it is attached.
    fn xdp_program(&self) -> Option<(&'static str, Mechanism)> {
        let mechanism = self.xdp?;
        let [udp, vxlan] = match (mechanism, Support::of_this_kernel().several_buffers) {
            (_, false) => ["udp_xdp_linear", "vxlan_xdp_linear"],
            (Mechanism::XdpGeneric, true) => ["udp_xdp_skb", "vxlan_xdp_skb"],
            (_, true) => ["udp_xdp", "vxlan_xdp"],
        };
        let program = match self.spec.format? {
            Format::Udp { .. } => udp,
            Format::Vxlan => vxlan,
        };
        Some((program, mechanism))
    }

    /// Bridges, pods and uplinks come and go; the kernel announces it.
    fn attach_where_possible(&mut self, place: Place) -> Result<Option<Attached>, DatapathError> {
        let may_go = self.bridges.contains(&place.interface) || self.pods.contains(&place.interface);
        match self.attach(place) {
            Err(error) if self.can_do_without(place) => {
                if !tells_of_absence(&error) && self.refused.insert(place.interface) {
                    let interface = name_of(place.interface).unwrap_or_default();
                    warn!(interface, error = %Chain(&error), "packets of the tunnel that arrive there are dropped");
                }
                Ok(None)
            }
            Err(error) if may_go && tells_of_absence(&error) => {
                debug!(program = place.program, %error, "the interface has gone");
                Ok(None)
            }
            attached => attached,
        }
    }

    /// Whether it is an uplink besides the underlay.
    fn can_do_without(&self, place: Place) -> bool {
        let Node { underlay, device, .. } = self.spec.node;
        let is_uplink = self.spec.uplinks.iter().any(|uplink| uplink.index == place.interface);
        is_uplink && ![underlay, device].contains(&place.interface)
    }

    fn attach(&mut self, place: Place) -> Result<Option<Attached>, DatapathError> {
        if let Some((_, mechanism)) = self.xdp_program().filter(|(program, _)| *program == place.program) {
            // What prevents XDP is reported once; the place is tried again at the next start.
            let refused = !self.attached.is_empty() && !self.attached.contains_key(&place);
            return if refused {
                Ok(None)
            } else {
                xdp::attach(&mut self.ebpf, &self.pins, place, mechanism)
            };
        }
        if self.spec.hook == HookChoice::Clsact {
            return self.attach_clsact(place).map(Some);
        }
        match tcx::attach(&mut self.ebpf, &self.pins, place) {
            Err(DatapathError::Attach { source, .. })
                if self.spec.hook != HookChoice::Tcx && tcx::is_unknown(&source) =>
            {
                self.attach_clsact(place).map(Some)
            }
            attached => attached.map(Some),
        }
    }

    fn attach_clsact(&mut self, place: Place) -> Result<Attached, DatapathError> {
        let handle = self.handle(place);
        clsact::attach(&mut self.ebpf, &self.pins, place, handle)
    }

    /// The handle of a filter.
    fn handle(&self, place: Place) -> u32 {
        // Without a device the subnet identifies the network. The same goes for programs that see packets on direct
        // routes, which are at the underlay beside the tunnel's.
        match self.spec.node.device {
            // The device of a former format keeps the filter that it had as the present one.
            _ if place.program == "vxlan_device" => place.interface,
            device if device == 0 || place.program.starts_with("direct_") => {
                u32::from_ne_bytes(self.spec.node.subnet.octets())
            }
            device => device,
        }
    }

    /// How a program will be attached at TC, where that is known beforehand.
    fn mechanism_at(&self, place: Place) -> Option<Mechanism> {
        if self.spec.hook == HookChoice::Clsact {
            return Some(Mechanism::Clsact);
        }
        let programs = tcx_programs(place.interface, place.program).ok()?;
        programs.map(|_| Mechanism::Tcx)
    }

    /// Detaches the same program from the place of another choice of the hook: a filter beside a link, or a link beside
    /// a filter.
    fn detach_former(&self, place: Place, by: Mechanism) -> Result<(), DatapathError> {
        match by {
            Mechanism::Tcx => {
                let name = clsact::pin_name(place, self.handle(place));
                if self.pins.filters().join(&name).exists() {
                    clsact::detach(&self.pins, &name)
                } else {
                    Ok(())
                }
            }
            Mechanism::Clsact => {
                let pin = self.pins.links().join(place.pin());
                if pin.exists() { detach_link(&pin) } else { Ok(()) }
            }
            Mechanism::Xdp | Mechanism::XdpGeneric => Ok(()),
        }
    }

    /// Detaches every pinned program without a present place: those of an earlier backend or hook, and of bridges no
    /// longer served.
    fn detach_others(&self) -> Result<(), DatapathError> {
        let wanted: BTreeSet<&str> = self.attached.values().map(|attached| attached.pin.as_str()).collect();
        for pin in names_in(&self.pins.links())?.into_iter().filter(|pin| !wanted.contains(pin.as_str())) {
            info!(link = pin, "detaching");
            remove_pin(&self.pins.links().join(&pin))?;
        }
        for pin in names_in(&self.pins.filters())?.into_iter().filter(|pin| !wanted.contains(pin.as_str())) {
            info!(filter = pin, "detaching");
            clsact::detach(&self.pins, &pin)?;
        }
        Ok(())
    }
}

/// The names of the pins of programs.
pub(super) fn program_pins(pins: &PinDir) -> Result<Vec<String>, DatapathError> {
    let mut names = names_in(&pins.links())?;
    names.append(&mut names_in(&pins.filters())?);
    Ok(names)
}

/// Detaches the program of a pin.
pub(super) fn detach(pins: &PinDir, name: &str) -> Result<(), DatapathError> {
    let link = pins.links().join(name);
    if link.exists() { remove_pin(&link) } else { clsact::detach(pins, name) }
}

/// The interfaces whose clsact qdisc is ours.
pub(super) fn qdiscs(pins: &PinDir) -> Result<Vec<u32>, DatapathError> {
    Ok(names_in(&pins.qdiscs())?.iter().filter_map(|name| name.parse().ok()).collect())
}

impl Place {
    /// Name of the pin of its link.
    fn pin(&self) -> String {
        format!("{}-{}", self.program, self.interface)
    }

    fn error(&self, mechanism: Mechanism, source: ProgramError) -> DatapathError {
        let interface = name_of(self.interface).unwrap_or_else(|_| format!("interface {}", self.interface));
        DatapathError::Attach { program: self.program, interface, mechanism, source: Box::new(source) }
    }
}

/// Whether the interface is gone, or about to go.
fn tells_of_absence(error: &DatapathError) -> bool {
    match error {
        DatapathError::InterfaceGone(_) => true,
        DatapathError::Attach { source, .. } => errno(source) == Some(Errno::ENODEV),
        _ => false,
    }
}

/// The direction of a TC program, the same wherever it is attached.
fn direction(program: &str) -> TcAttachType {
    match program {
        "udp_decap" | "udp_decap_l3" | "udp_segmented" | "vxlan_decap" | "vxlan_decap_l3"
        | "vxlan_device" | "pod_out" | "direct_in" => TcAttachType::Ingress,
        _ => TcAttachType::Egress,
    }
}

/// The interfaces at which an earlier daemon attached the program of that prefix, if they are still there.
fn served(pins: &PinDir, prefix: &str) -> Result<BTreeSet<u32>, DatapathError> {
    let names = names_in(&pins.links())?.into_iter().chain(names_in(&pins.filters())?);
    let index = |name: String| name.strip_prefix(prefix)?.split('-').next()?.parse().ok();
    Ok(names.filter_map(index).filter(|index| name_of(*index).is_ok()).collect())
}

fn name_of(interface: u32) -> Result<String, DatapathError> {
    interface_name(interface).ok_or(DatapathError::InterfaceGone(interface))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    let missing =
        || DatapathError::Program { program: name.to_owned(), source: ProgramError::NotLoaded.into() };
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

fn pinned(pin: &Path) -> Result<Option<FdLink>, DatapathError> {
    if !pin.exists() {
        return Ok(None);
    }
    PinnedLink::from_pin(pin).map(|link| Some(FdLink::from(link))).map_err(|error| foreign_link(pin, &error))
}

fn pin_link(link: FdLink, pin: &Path) -> Result<(), DatapathError> {
    link.pin(pin).map(drop).map_err(|source| DatapathError::Pin { path: pin.to_owned(), source })
}

fn foreign_link(pin: &Path, error: &LinkError) -> DatapathError {
    DatapathError::ForeignPin {
        path: pin.to_owned(),
        difference: format!("it is no link of the right type ({error})"),
    }
}

/// Detaches a pinned link at once, and removes its pin.
fn detach_link(pin: &Path) -> Result<(), DatapathError> {
    sys::detach(pin).map_err(|source| DatapathError::Unpin { path: pin.to_owned(), source })?;
    remove_pin(pin)
}

fn remove_pin(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Unpin { path: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Whether the link pinned there is detached, or its pin gone. The kernel does not announce a detached link: the pin
/// stays, so it has to be asked.
fn is_pin_detached(pin: &Path) -> bool {
    sys::interface_of(pin).is_ok_and(|interface| interface == 0) || !pin.exists()
}

/// Whether the interface a link was attached to is gone, or somebody detached the link.
fn is_detached(error: &ProgramError) -> bool {
    errno(error) == Some(Errno::ENOLINK)
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
