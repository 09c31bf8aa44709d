//! Every packet a program sees is counted once, as the kernel counts the runs of the program.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use flannel_common::maps::{COUNTERS, Count};
use flannel_common::{Hook, Reason};
use flannel_datapath::{PinDir, pinned_programs};

use crate::wait;

/// A packet may be between its program's end and the reader's two looks.
const SETTLE: Duration = Duration::from_secs(2);

/// What has counted in the maps of one pin directory. Whatever is noted is held, so that it can be read when it has been
/// replaced; programs nobody noted before they were replaced are missed, and their packets are then found counted
/// by nobody.
#[derive(Debug)]
pub struct Ledger {
    pin_dir: PathBuf,
    books: Vec<Book>,
}

/// A map of counters, and the programs that count in it.
struct Book {
    map: u32,
    counters: PerCpuArray<MapData, Count>,
    programs: BTreeMap<u32, (Hook, ProgramFd)>,
}

impl Ledger {
    /// An empty one. The kernel counts runs from now on until this process ends.
    ///
    /// # Errors
    /// The kernel does not count.
    pub fn open(pin_dir: &Path) -> Result<Self> {
        static STATISTICS: OnceLock<OwnedFd> = OnceLock::new();
        if STATISTICS.get().is_none() {
            let statistics = enable_stats(Stats::RunTime).context("the kernel does not count runs")?;
            // Another thread's is as good.
            drop(STATISTICS.set(statistics));
        }
        Ok(Self { pin_dir: pin_dir.to_owned(), books: Vec::new() })
    }

    /// Notes the pinned counters and the programs that count in them now.
    ///
    /// # Errors
    /// A map or a program cannot be opened.
    pub fn note(&mut self) -> Result<()> {
        let pin = PinDir::maps(&self.pin_dir).join(COUNTERS);
        if pin.exists() {
            let counters = MapData::from_pin(&pin)?;
            let map = counters.info()?.id();
            if !self.books.iter().any(|book| book.map == map) {
                let counters = Map::from_map_data(counters)?.try_into()?;
                self.books.push(Book { map, counters, programs: BTreeMap::new() });
            }
        }
        let is_noted = |books: &[Book], id| books.iter().any(|book| book.programs.contains_key(&id));
        // A loader with few capabilities gives programs no names; the pins do.
        let pinned = if pin.exists() { pinned(&self.pin_dir)? } else { BTreeMap::new() };
        for program in loaded_programs().filter_map(Result::ok) {
            let named = program.name_as_str().and_then(hook);
            let known = named.or_else(|| pinned.get(&program.id()).copied());
            let Some(hook) = known.filter(|_| !is_noted(&self.books, program.id())) else { continue };
            // One that is unloaded meanwhile has no maps.
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            for book in self.books.iter_mut().filter(|book| maps.contains(&book.map)) {
                book.programs.insert(program.id(), (hook, program.fd()?));
            }
        }
        Ok(())
    }

    /// Fails unless at each hook as many packets were counted as the programs have run.
    ///
    /// # Errors
    /// They differ; the error says by how much.
    pub fn check(&mut self) -> Result<()> {
        self.note()?;
        for book in &self.books {
            let what = format!("every packet to be counted once below {}", self.pin_dir.display());
            wait::until(&what, SETTLE, || book.check())?;
        }
        Ok(())
    }
}

impl Book {
    fn check(&self) -> Result<()> {
        let (runs, counted) = (self.runs(), self.counted()?);
        let mut faults = String::new();
        for hook in Hook::ALL {
            let [runs, counted] = [&runs, &counted].map(|by| by.get(hook.label()).copied().unwrap_or(0));
            if runs != counted {
                write!(faults, " at {hook} programs ran {runs} times and counted {counted} packets;")?;
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(anyhow!("{}", faults.trim())) }
    }

    fn runs(&self) -> BTreeMap<&'static str, u64> {
        let mut runs = BTreeMap::new();
        for program in loaded_programs().filter_map(Result::ok) {
            if let Some((hook, _)) = self.programs.get(&program.id()) {
                *runs.entry(hook.label()).or_default() += program.run_count();
            }
        }
        runs
    }

    /// Every slot, also those of no reason.
    fn counted(&self) -> Result<BTreeMap<&'static str, u64>> {
        let count =
            |slot| anyhow::Ok(self.counters.get(&slot, 0)?.iter().map(|count| count.packets).sum::<u64>());
        let at = |hook: Hook| {
            (0..Reason::SLOTS).map(|reason| count(hook as u32 * Reason::SLOTS + reason)).sum::<Result<u64>>()
        };
        Hook::ALL.iter().map(|hook| Ok((hook.label(), at(*hook)?))).collect()
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("map", &self.map)
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}

/// The programs pinned below `pin_dir`, by their ids.
///
/// # Errors
/// A pin cannot be opened.
pub fn pinned(pin_dir: &Path) -> Result<BTreeMap<u32, Hook>> {
    let links = pinned_programs(pin_dir)?;
    let mut all: BTreeMap<u32, Hook> =
        links.iter().filter_map(|link| Some((link.by.program_id()?, hook(&link.program)?))).collect();
    // There is none where nothing is a filter.
    for entry in fs::read_dir(pin_dir.join("filters")).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(hook) = name.split('-').next().and_then(hook) {
            all.insert(ProgramInfo::from_pin(&path)?.id(), hook);
        }
    }
    Ok(all)
}

/// Where a program sees packets, by its name.
fn hook(program: &str) -> Option<Hook> {
    Some(match program {
        "udp_encap" | "vxlan_encap" => Hook::Encap,
        "udp_decap" | "udp_decap_l3" | "vxlan_decap" | "vxlan_decap_l3" => Hook::Decap,
        "udp_xdp" | "udp_xdp_skb" | "udp_xdp_linear" | "vxlan_xdp" | "vxlan_xdp_skb" | "vxlan_xdp_linear" => {
            Hook::Xdp
        }
        "vxlan_device" => Hook::Device,
        "bridge" => Hook::Bridge,
        "udp_segmented" => Hook::Segmented,
        "pod_out" => Hook::PodOut,
        "pod_in" => Hook::PodIn,
        "direct_out" => Hook::DirectOut,
        "direct_in" => Hook::DirectIn,
        _ => return None,
    })
}
