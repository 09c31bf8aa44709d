//! Loading of the object, with the maps that are pinned already.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use flannel_common::maps::{ALL, Kind, Layout, NODE};
use nix::unistd::geteuid;

use super::{DatapathError, Format, PinDir, Spec, map_path};

/// The object file with every program, as the build embeds it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FLANNEL_DATAPATH_OBJECT"));

/// Loads every program that can be needed for `spec`, over the pinned maps.
pub(super) fn load(pins: &PinDir, spec: &Spec) -> Result<Ebpf, DatapathError> {
    for layout in &ALL {
        check_pin(&map_path(pins.path(), layout.name), layout)?;
    }
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

/// Refuses a pin that is not a map of ours: the loader would take over whatever it finds.
pub(super) fn check_pin(path: &Path, layout: &Layout) -> Result<(), DatapathError> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let foreign = |difference| DatapathError::ForeignPin { path: path.to_owned(), difference };
    if metadata.uid() != geteuid().as_raw() {
        return Err(foreign(format!("it belongs to user {}", metadata.uid())));
    }
    let info = MapInfo::from_pin(path).map_err(|error| foreign(format!("it is no map ({error})")))?;
    let kind = info.map_type().ok();
    if kind != Some(map_type(layout.kind)) {
        return Err(foreign(format!("its type is {kind:?} instead of {:?}", layout.kind)));
    }
    let found = [info.key_size(), info.value_size(), info.max_entries()];
    let wanted = [layout.key_size, layout.value_size, layout.max_entries];
    if found != wanted {
        return Err(foreign(format!(
            "its key size, value size and capacity are {found:?} instead of {wanted:?}"
        )));
    }
    Ok(())
}

const fn map_type(kind: Kind) -> MapType {
    match kind {
        Kind::Hash => MapType::Hash,
        Kind::PerCpuHash => MapType::PerCpuHash,
        Kind::Array => MapType::Array,
        Kind::PerCpuArray => MapType::PerCpuArray,
        Kind::LruHash => MapType::LruHash,
        Kind::RingBuf => MapType::RingBuf,
    }
}
