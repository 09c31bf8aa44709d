//! Loading of the object, with the maps that are pinned already.

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use flannel_common::maps::{ALL, NODE};

use super::{DatapathError, Format, PinDir, Spec, foreign, map_path};

/// The object file with every program, as the build embeds it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FLANNEL_DATAPATH_OBJECT"));

/// Loads every program that can be needed for `spec`, over the pinned maps.
pub(super) fn load(pins: &PinDir, spec: &Spec) -> Result<Ebpf, DatapathError> {
    foreign::check(pins)?;
    let mut loader = EbpfLoader::new();
    for layout in &ALL {
        loader.map_pin_path(layout.name, map_path(pins.path(), layout.name));
    }
    loader.override_global(NODE, &spec.node, true);
    let mut ebpf = loader.load(OBJECT).map_err(DatapathError::Load)?;
    for program in programs(spec) {
        load_program(&mut ebpf, program)?;
    }
    Ok(ebpf)
}

/// The programs that are needed besides XDP, which is loaded only where it is attached.
fn programs(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let tunnel: &[_] = match spec.format {
        None => &[],
        Some(Format::Udp { .. }) => &["udp_encap", "udp_decap", "udp_segmented", "bridge"],
        Some(Format::Vxlan) => &["vxlan_encap", "vxlan_decap", "vxlan_device", "bridge"],
    };
    let pods: &[_] = if spec.shortens() { &["pod_out", "pod_in"] } else { &[] };
    let routes: &[_] = if spec.shortens() && spec.routes { &["direct_out", "direct_in"] } else { &[] };
    tunnel.iter().chain(pods).chain(routes).copied()
}

/// Loads a program unless it is loaded.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), DatapathError> {
    let loaded = match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => program.load(),
        Some(Program::Xdp(program)) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => loaded.map_err(|source| DatapathError::Program { program: name.to_owned(), source }),
    }
}
