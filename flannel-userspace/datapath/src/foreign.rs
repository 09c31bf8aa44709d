//! Pins that are not ours are refused before anything is loaded, replaced or removed: loader and links take over what
//! they find.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use flannel_common::maps::{ALL, Kind, Layout};
use nix::unistd::geteuid;

use super::bpffs::names_in;
use super::sys::open_pin;
use super::{DatapathError, PinDir, map_path};

/// What must be pinned at a place.
struct Wanted {
    /// For people.
    what: &'static str,
    /// What the kernel says of its descriptor; one of these.
    signs: &'static [&'static str],
}

const MAP: Wanted = Wanted { what: "map", signs: &["map_type:"] };
const LINK: Wanted = Wanted { what: "TCX or XDP link", signs: &["link_type:\ttcx", "link_type:\txdp"] };
/// `BPF_PROG_TYPE_SCHED_CLS` is 3.
const CLASSIFIER: Wanted = Wanted { what: "classifier program", signs: &["prog_type:\t3"] };

/// Fails if something below the pin directory belongs to another user, or is not what we pin at its place.
pub(super) fn check(pins: &PinDir) -> Result<(), DatapathError> {
    for layout in &ALL {
        check_map(&map_path(pins.path(), layout.name), layout)?;
    }
    for (directory, wanted) in
        [(pins.links(), LINK), (pins.filters(), CLASSIFIER), (pins.qdiscs(), CLASSIFIER)]
    {
        for name in names_in(&directory)? {
            check_pin(&directory.join(name), &wanted)?;
        }
    }
    pins.other_maps()?.iter().try_for_each(|maps| check_user(maps))
}

fn check_map(path: &Path, layout: &Layout) -> Result<(), DatapathError> {
    if !path.exists() {
        return Ok(());
    }
    check_pin(path, &MAP)?;
    let info = MapInfo::from_pin(path).map_err(|error| foreign(path, format!("it is no map ({error})")))?;
    let kind = info.map_type().ok();
    if kind != Some(map_type(layout.kind)) {
        return Err(foreign(path, format!("its type is {kind:?} instead of {:?}", layout.kind)));
    }
    let found = [info.key_size(), info.value_size(), info.max_entries()];
    let wanted = [layout.key_size, layout.value_size, layout.max_entries];
    if found != wanted {
        let difference = format!("its key size, value size and capacity are {found:?} instead of {wanted:?}");
        return Err(foreign(path, difference));
    }
    Ok(())
}

fn check_pin(path: &Path, wanted: &Wanted) -> Result<(), DatapathError> {
    check_user(path)?;
    let told = description(path).map_err(|error| foreign(path, format!("it cannot be opened ({error})")))?;
    let is_wanted = told.lines().any(|line| wanted.signs.iter().any(|sign| line.starts_with(sign)));
    if is_wanted { Ok(()) } else { Err(foreign(path, format!("it is no {}", wanted.what))) }
}

fn check_user(path: &Path) -> Result<(), DatapathError> {
    let metadata = fs::symlink_metadata(path)
        .map_err(|error| foreign(path, format!("it cannot be looked at ({error})")))?;
    if metadata.uid() == geteuid().as_raw() {
        Ok(())
    } else {
        Err(foreign(path, format!("it belongs to user {}", metadata.uid())))
    }
}

/// What the kernel says of the object behind a pin, one line for each property.
fn description(path: &Path) -> io::Result<String> {
    let object = open_pin(path)?;
    fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))
}

fn foreign(path: &Path, difference: String) -> DatapathError {
    DatapathError::ForeignPin { path: path.to_owned(), difference }
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
