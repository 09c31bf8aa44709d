//! All metrics of flanneld.

use flannel_control::Metrics;
use flannel_datapath::metrics::DatapathSource;
use flannel_observe::{Domain, Exposition, Files, ScrapeErrors, Vitals};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Shows the control plane, what the programs count, where there are programs, and the age of files.
pub(super) fn exposition(
    vitals: &Vitals,
    metrics: &Metrics,
    datapath: Option<&DatapathSource>,
    files: Files,
) -> Exposition {
    let datapath = datapath.map_or(&KernelAlone as &dyn Domain, |datapath| datapath);
    Exposition::new(vitals, files, &[&Build, metrics, datapath])
}

/// Which flanneld runs.
struct Build;

impl Domain for Build {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("abi_version", flannel_common::ABI_VERSION.to_string()),
        ]);
        registry.register("build", "Which flanneld runs, and the version of the maps' layout", build);
    }
}

/// What forwards where there are no programs.
struct KernelAlone;

impl Domain for KernelAlone {
    fn register(&self, registry: &mut Registry, _: &ScrapeErrors) {
        let info = Info::new([("mode", "kernel")]);
        registry.register("datapath", "What forwards, and what the programs know of this host", info);
    }
}

#[cfg(test)]
mod tests;
