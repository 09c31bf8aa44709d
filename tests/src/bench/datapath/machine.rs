//! Where it was measured.

use std::fmt::{self, Display, Formatter};
use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What the figures depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// How many of them.
    pub cpus: usize,
    /// Load averages of 1, 5 and 15 minutes, before and after: above about 1 somebody else was at work.
    pub load: [String; 2],
}

impl Machine {
    /// The machine as it is now, at the beginning of a measurement.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn now() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned());
            cpuinfo.lines().find_map(value)
        };
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            load: [load()?, String::new()],
        })
    }

    /// Also notes what it is like at the end.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn end(&mut self) -> Result<()> {
        self.load[1] = load()?;
        Ok(())
    }
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("the kernel does not show its load")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

impl Display for Machine {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, cpus, load: [before, after] } = self;
        write!(formatter, "Linux {kernel}, {cpus} CPUs ({processor}), load {before} before and {after} after")
    }
}
