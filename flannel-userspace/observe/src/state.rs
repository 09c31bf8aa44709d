//! The state of the daemon, as its health endpoints report it, and the age of its files.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::series::Writer;
use super::{Conditions, Liveness, Vitals};

/// The files that the daemon keeps.
#[derive(Clone, Debug)]
pub struct Files {
    /// The subnet file.
    pub subnet: PathBuf,
    /// The last known leases.
    pub state: PathBuf,
}

/// Reads at each scrape.
#[derive(Debug)]
pub(super) struct StateCollector {
    conditions: Conditions,
    liveness: Liveness,
    files: Files,
}

impl StateCollector {
    pub(super) fn new(vitals: &Vitals, files: Files) -> Self {
        Self { conditions: vitals.conditions.clone(), liveness: vitals.liveness.clone(), files }
    }
}

impl Collector for StateCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        let (pending, limits) = (self.conditions.pending(), self.conditions.limits());
        let alone = |value: bool| [([("", ""); 0], u64::from(value))].into_iter();
        writer.gauges(
            "ready",
            "1 while the host forwards, as /readyz reports.",
            alone(pending.is_empty()),
        )?;
        let pending = pending.iter().map(|what| ([("what", *what)], 1_u64));
        writer.gauges("pending", "Conditions of readiness that are not met.", pending)?;
        let limits: BTreeSet<&str> = limits.iter().map(|limit| limit.without).collect();
        let limits = limits.iter().map(|without| ([("without", *without)], 1_u64));
        writer.gauges(
            "limited",
            "What the host forwards without; /readyz gives the reason. Absent while nothing is missing.",
            limits,
        )?;
        let alive = self.liveness.stopped().is_empty();
        writer.gauges(
            "alive",
            "1 while every part of the daemon gives its heartbeat, as /livez reports.",
            alone(alive),
        )?;
        let files = [("state", &self.files.state), ("subnet", &self.files.subnet)];
        let written = files.iter().filter_map(|(file, path)| Some(([("file", *file)], written(path)?)));
        writer.gauges(
            "file_written_timestamp_seconds",
            "When the subnet file or the state file was last written, in seconds since 1970; absent without the file.",
            written,
        )
    }
}

/// When a file was last written.
fn written(path: &Path) -> Option<f64> {
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}
