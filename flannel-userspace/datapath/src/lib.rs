//! The programs and their maps: loaded, pinned, attached, adopted.
//!
//! Everything is pinned below one directory of ours in the BPF file system, `maps@<layout>/` and `links/`, so that it
//! outlives the daemon. A daemon that finds pins adopts them: maps are kept with their content, and programs are
//! replaced through their links, so that no packet misses a program. Maps of another build's layout cannot be adopted:
//! then new ones are filled before programs are replaced.
//!
//! Everything that uses bpf(2) lives here. Which peers there are, and which other kernel objects they have, does not.

mod attach;
mod bpffs;
mod check;
mod flows;
mod foreign;
mod former;
pub mod hooks;
mod idle;
mod lines;
mod load;
pub mod metrics;
mod refusal;
mod support;
mod sys;
mod tables;
mod trace_session;
mod unavailable;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError};
use flannel_common::flow::Bypass;
use flannel_common::maps::Node;
use flannel_net::Uplink;
use flannel_privileges::MemoryLimit;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tracing::warn;

use attach::Attacher;
pub use attach::{
    Choice, Decapsulation, Mechanism, Offer, Pinned, PinnedAs, choose, is_ingress, is_linked,
    pinned_programs, tcx_programs, wanted_places,
};
pub use bpffs::PinDir;
pub use check::{Accepted, Answer, check, require};
pub use flows::Approver;
pub use former::give_up;
use lines::Lines;
pub use load::{OBJECT, loader};
pub use refusal::Refusal;
pub use support::Support;
pub use tables::{PeerEntry, Tables};
pub use trace_session::{TraceSession, time_of_day};
pub use unavailable::{Missing, Unavailable, unavailable};

/// The format on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Stock flannel's `udp` format.
    Udp {
        /// Interface index of the segmenter's exit.
        segmented: u32,
    },
    /// VXLAN.
    Vxlan,
}

/// Where the operator wants programs to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HookChoice {
    /// TCX where the kernel has it (6.6), else clsact; decapsulation by native XDP where that was measured to win
    /// (`udp`) and the underlay is a network card whose driver takes it.
    #[default]
    Auto,
    /// Decapsulation by native XDP on the underlay, everything else by TCX or clsact. Where XDP is taken or
    /// not supported by the driver, by these, too.
    Xdp,
    /// The same by generic XDP, for which no driver is asked: after receive offload, and slower than TCX.
    XdpGeneric,
    /// TCX or nothing.
    Tcx,
    /// The clsact qdisc.
    Clsact,
}

/// Of which packets the programs write lines for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogChoice {
    /// None, which costs nothing.
    #[default]
    Off,
    /// Packets that are dropped.
    Warn,
    /// Also tunnel packets that are left to the stack: another network's, fragments, and what is too long.
    Info,
}

impl LogChoice {
    /// What the programs know it by: the least important of aya-log's levels that is wanted.
    const fn number(self) -> &'static u8 {
        match self {
            Self::Off => &0,
            Self::Warn => &(aya_log::Level::Warn as u8),
            Self::Info => &(aya_log::Level::Info as u8),
        }
    }
}

/// What programs do besides forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSettings {
    /// Of which packets they write lines for the log.
    pub log: LogChoice,
    /// Whether they count packets.
    pub counts: bool,
}

impl Default for ProgramSettings {
    fn default() -> Self {
        Self { log: LogChoice::Off, counts: true }
    }
}

/// What the datapath should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The format on the wire; without a tunnel there is no program to attach, and the maps only hold the peers.
    pub format: Option<Format>,
    /// Whether routes can lead straight to peers.
    pub routes: bool,
    /// What the programs know of this host, and the interfaces they are attached to.
    pub node: Node,
    /// The interfaces by which packets of the tunnel arrive, the underlay among them.
    pub uplinks: BTreeSet<Uplink>,
    /// Where programs are attached.
    pub hook: HookChoice,
    /// What they do besides.
    pub program_settings: ProgramSettings,
}

impl Spec {
    /// Whether flows of pods can bypass the stack.
    const fn has_bypass(&self) -> bool {
        self.node.bypass != Bypass::Off as u32
    }

    /// Whether packets of the underlay have Ethernet headers.
    fn has_ethernet(&self) -> bool {
        self.uplinks.contains(&Uplink { index: self.node.underlay, has_ethernet: true })
    }
}

/// When programs are attached that are in no place yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At once: nothing forwards yet.
    AtOnce,
    /// With [`Datapath::take_over`]: the kernel forwards by itself, and they would drop what comes from peers that they do
    /// not know yet.
    WithPeers,
}

/// Something about programs, maps or pins went wrong.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// The BPF file system is not available.
    #[error("cannot mount the BPF file system at {path}; mount it with `mount -t bpf bpf {path}`")]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory for pins cannot be made or is not ours.
    #[error(
        "cannot use {path} for pins: it must be a directory of this user on a BPF file system; remove it, or choose another --pin-dir"
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another daemon has this pin directory.
    #[error(
        "another flanneld uses the pin directory {path}; stop it, or give this one another --etcd-prefix or --pin-dir"
    )]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// A pin is there that we did not make.
    #[error("the pin {path} is not ours: {difference}; remove it, or choose another --pin-dir")]
    ForeignPin {
        /// Which.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// A pinned map cannot be opened.
    #[error("cannot open the pinned map {path}; is flanneld's datapath in place, and is --pin-dir right?")]
    OpenMap {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: MapError,
    },
    /// Another trace or capture runs.
    #[error(
        "another trace or capture of the datapath at {path} runs; the programs serve one at a time: end that one first"
    )]
    TraceBusy {
        /// Where.
        path: PathBuf,
    },
    /// A map cannot be read or written.
    #[error("cannot {operation} the map {map}{}", map_remedy(source))]
    Map {
        /// What was to be done.
        operation: &'static str,
        /// With which map.
        map: &'static str,
        /// Why it failed.
        source: MapError,
    },
    /// The object cannot be loaded.
    #[error("cannot load the eBPF programs (the kernel must be 5.10 or newer, with CAP_BPF granted)")]
    Load(#[source] EbpfError),
    /// Maps exceed the limit of locked memory.
    #[error(
        "cannot make the map {map}: this kernel charges maps to the limit of locked memory, which is {limit} and \
         cannot be raised; raise it (systemd: LimitMEMLOCK=infinity, shell: ulimit -l unlimited)"
    )]
    MemoryLimit {
        /// The map that could not be made.
        map: String,
        /// The limit.
        limit: MemoryLimit,
    },
    /// The ring of lines for the log cannot be read.
    #[error("cannot read the lines that the programs write for the log; --datapath-log=off goes without")]
    Lines(#[source] io::Error),
    /// A program is refused by the kernel.
    #[error("the kernel refuses the program {program}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: Refusal,
    },
    /// An interface is gone.
    #[error("there is no interface of index {0} any more to attach a program to; it is looked for again")]
    InterfaceGone(u32),
    /// A program cannot be attached.
    #[error("cannot attach {program} to {interface} by {mechanism}; see --datapath-hook for other ways")]
    Attach {
        /// Which.
        program: &'static str,
        /// Where.
        interface: String,
        /// How.
        mechanism: Mechanism,
        /// Why not.
        source: Box<ProgramError>,
    },
    /// The kernel has nothing to attach programs to at TC.
    #[error(
        "Linux {release} takes no programs under clsact: use a kernel with CONFIG_NET_SCH_INGRESS and \
         CONFIG_NET_CLS_BPF, or make its modules sch_ingress and cls_bpf available; see --datapath-hook for other ways"
    )]
    NoClsact {
        /// The kernel's release.
        release: String,
    },
    /// A pin cannot be made.
    #[error(
        "cannot pin {path}: make the BPF file system writable (mount -o remount,rw), or choose another --pin-dir"
    )]
    Pin {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: PinError,
    },
    /// A pin cannot be removed.
    #[error(
        "cannot remove the pin {path}: make the BPF file system writable (mount -o remount,rw), or remove it by hand"
    )]
    Unpin {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What helps against the answers of the kernel to whoever uses a map.
fn map_remedy(error: &MapError) -> &'static str {
    let MapError::SyscallError(error) = error else { return "" };
    match error.io_error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => ", which takes CAP_BPF",
        Some(Errno::E2BIG | Errno::ENOSPC) => {
            ", which is full: the network has more hosts than it has room for"
        }
        Some(Errno::ENOMEM) => ", because the kernel has no memory left for it",
        _ => "",
    }
}

impl DatapathError {
    /// Names the limit of locked memory, if a map exceeded it.
    fn with_memory_limit(self) -> Self {
        match (self, MemoryLimit::of_maps()) {
            (Self::Load(EbpfError::MapError(MapError::CreateError { name, io_error })), Some(limit))
                if io_error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::MemoryLimit { map: name, limit }
            }
            (other, _) => other,
        }
    }
}

/// The datapath of one network on this host.
pub struct Datapath {
    tables: Tables,
    attacher: Attacher,
    /// Copies the programs' lines to the log, if they write any.
    _lines: Option<Lines>,
}

impl Datapath {
    /// Loads the programs for `spec`, adopts what is pinned in `pins`, attaches what is not attached and detaches
    /// what an earlier configuration left. Entries of the maps stay as they are. `arrival` says when programs are attached
    /// where there are none yet.
    ///
    /// # Errors
    /// A pin is not ours; the kernel refuses a program or its place.
    pub fn start(pins: Arc<PinDir>, spec: Spec, arrival: Arrival) -> Result<Self, DatapathError> {
        let mut ebpf = load::load(&pins, &spec).map_err(DatapathError::with_memory_limit)?;
        warn_where_interpreted(&ebpf);
        let lines = match spec.program_settings.log {
            LogChoice::Off => None,
            LogChoice::Warn | LogChoice::Info => Some(Lines::carry(&mut ebpf)?),
        };
        let mut tables = Tables::open(pins.path())?;
        tables.put_node(spec.node)?;
        tables.begin_generation()?;
        let attacher = Attacher::start(ebpf, pins, spec, arrival)?;
        Ok(Self { tables, attacher, _lines: lines })
    }

    /// The maps.
    pub fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Super-packets out of the tunnel leave exactly these bridges whole, and flows from and to these `pods` bypass the
    /// stack. Bridges and the pods' ports, with their bridge, are given by their interface indexes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn serve(&mut self, bridges: &BTreeSet<u32>, pods: &BTreeMap<u32, u32>) -> Result<(), DatapathError> {
        if self.attacher.serve(bridges, pods)? {
            self.tables.begin_generation()?;
        }
        Ok(())
    }

    /// Whether all links are still attached; a few system calls for each.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.attacher.is_whole()
    }

    /// To be called when the maps hold every peer. Replaces what has forwarded until now: programs of a build with another
    /// layout of maps, or the kernel alone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_over(&mut self) -> Result<(), DatapathError> {
        self.attacher.take_over()
    }

    /// Attaches again what somebody has detached, and has packets of the tunnel received at `uplinks`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn hold(&mut self, uplinks: &BTreeSet<Uplink>) -> Result<(), DatapathError> {
        self.attacher.receive_at(uplinks)
    }
}

/// The kernel's interpreter runs programs, too, but takes several times as long.
fn warn_where_interpreted(ebpf: &Ebpf) {
    // Programs that are not loaded are skipped.
    let mut loaded = ebpf.programs().filter_map(|(_, program)| program.info().ok());
    if loaded.any(|program| program.size_jitted() == 0) {
        warn!(
            "the kernel interprets the programs instead of compiling them, which is slower: sysctl \
             net.core.bpf_jit_enable=1, or a kernel with CONFIG_BPF_JIT"
        );
    }
}

/// The names of the programs pinned in `pins`, each with the index of its interface.
///
/// # Errors
/// The directory cannot be read.
pub fn program_pins(pins: &PinDir) -> Result<Vec<String>, DatapathError> {
    attach::program_pins(pins)
}

/// Detaches the program that is pinned by this name.
///
/// # Errors
/// The pin cannot be removed.
pub fn detach(pins: &PinDir, name: &str) -> Result<(), DatapathError> {
    attach::detach(pins, name)
}

/// The interfaces, by their indexes, whose clsact qdisc was added for the programs pinned in `pins`.
///
/// # Errors
/// The directory cannot be read.
pub fn qdiscs(pins: &PinDir) -> Result<Vec<u32>, DatapathError> {
    attach::qdiscs(pins)
}

/// The name of the interface of that index. Where there is none, nix 0.31 says it is called "".
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
}

/// The clock of the programs' time stamps.
#[must_use]
pub fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Where maps are pinned.
pub fn map_path(pin_dir: &Path, map: &str) -> PathBuf {
    PinDir::maps(pin_dir).join(map)
}

#[cfg(test)]
mod tests {
    use super::interface_name;

    #[test]
    fn an_interface_that_is_not_there_has_no_name() {
        assert_eq!(interface_name(1).as_deref(), Some("lo"));
        assert_eq!(interface_name(4_000_000), None);
    }
}
