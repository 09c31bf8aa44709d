//! Loading of the object, with the maps that are pinned already.

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use flannel_common::maps::{ALL, COARSE_CLOCK, COUNTING, LINES, NODE, Node};
use flannel_privileges::while_loading;
use nix::unistd::{SysconfVar, sysconf};

use super::{DatapathError, Format, LogChoice, PinDir, ProgramSettings, Spec, Support, foreign, map_path};

/// The object file with every program, as the build embeds it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FLANNEL_DATAPATH_OBJECT"));

/// A loader of [`OBJECT`] for a host with this kernel.
#[must_use]
pub fn loader<'a>(node: &'a Node, program_settings: &ProgramSettings) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.override_global(NODE, node, true);
    loader.override_global(COUNTING, switch(program_settings.counts), true);
    loader.override_global(COARSE_CLOCK, switch(Support::of_this_kernel().coarse_clock), true);
    loader.override_global(aya_log::LEVEL, program_settings.log.number(), true);
    if program_settings.log == LogChoice::Off {
        loader.map_max_entries(LINES, smallest_ring());
    }
    loader
}

/// Bytes of the smallest ring the kernel makes: a page.
pub(super) fn smallest_ring() -> u32 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| page.try_into().ok());
    page.unwrap_or(4096)
}

/// Every program of the format and the routes of `spec` that is for a kernel with this support, with each that
/// decapsulates at XDP.
pub(super) fn programs_of(spec: &Spec, support: Support) -> impl Iterator<Item = &'static str> {
    let xdp: &[_] = match spec.format {
        None => &[],
        Some(Format::Udp { .. }) => &["udp_xdp", "udp_xdp_skb", "udp_xdp_linear"],
        Some(Format::Vxlan) => &["vxlan_xdp", "vxlan_xdp_skb", "vxlan_xdp_linear"],
    };
    programs(spec).chain(xdp.iter().copied()).filter(move |program| support.takes(program))
}

const fn switch(is_on: bool) -> &'static u8 {
    if is_on { &1 } else { &0 }
}

/// Loads every program that can be needed for `spec`, over the pinned maps.
pub(super) fn load(pins: &PinDir, spec: &Spec) -> Result<Ebpf, DatapathError> {
    foreign::check(pins)?;
    let mut loader = loader(&spec.node, &spec.program_settings);
    for layout in &ALL {
        loader.map_pin_path(layout.name, map_path(pins.path(), layout.name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(DatapathError::Load)?;
    for program in programs(spec) {
        load_program(&mut ebpf, program)?;
    }
    Ok(ebpf)
}

/// The programs that are needed besides XDP, which is loaded only where it is attached.
pub(super) fn programs(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let tunnel: &[_] = match spec.format {
        None => &[],
        Some(Format::Udp { .. }) => &["udp_encap", "udp_decap", "udp_decap_l3", "udp_segmented", "bridge"],
        Some(Format::Vxlan) => &["vxlan_encap", "vxlan_decap", "vxlan_decap_l3", "vxlan_device", "bridge"],
    };
    let pods: &[_] = if spec.has_bypass() { &["pod_out", "pod_in"] } else { &[] };
    let routes: &[_] = if spec.has_bypass() && spec.routes { &["direct_out", "direct_in"] } else { &[] };
    tunnel.iter().chain(pods).chain(routes).copied()
}

/// Loads a program unless it is loaded.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), DatapathError> {
    let mut load = || match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => program.load(),
        Some(Program::Xdp(program)) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    while_loading(|| match load() {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => {
            loaded.map_err(|error| DatapathError::Program { program: name.to_owned(), source: error.into() })
        }
    })
}
