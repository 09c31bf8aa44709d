//! The process as the kernel sees it, under the names every Prometheus client uses.

use std::fmt;

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::scrape::{ScrapeErrors, Source};

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    reads: Source,
}

struct Reading {
    cpu_seconds: f64,
    start_time_seconds: f64,
    resident_memory_bytes: u64,
    virtual_memory_bytes: u64,
    threads: i64,
    open_fds: u64,
    max_fds: f64,
}

impl Reading {
    fn take() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            start_time_seconds: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
            resident_memory_bytes: stat.rss * procfs::page_size(),
            virtual_memory_bytes: stat.vsize,
            threads: stat.num_threads,
            open_fds: process.fd_count()? as u64,
            max_fds: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(limit) => limit as f64,
                LimitValue::Unlimited => f64::INFINITY,
            },
        })
    }
}

impl ProcessCollector {
    pub(super) fn new(errors: &ScrapeErrors) -> Self {
        Self { reads: errors.source("process") }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(reading) = self.reads.read(Reading::take()) else { return Ok(()) };
        let mut put = |name, help, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        put(
            "cpu_seconds",
            "Processor time spent, in user and system mode.",
            &ConstCounter::new(reading.cpu_seconds),
        )?;
        put(
            "start_time_seconds",
            "When the process began, in seconds since 1970.",
            &ConstGauge::new(reading.start_time_seconds),
        )?;
        put(
            "resident_memory_bytes",
            "Memory that is in use and not swapped out.",
            &ConstGauge::new(reading.resident_memory_bytes),
        )?;
        put("virtual_memory_bytes", "Address space.", &ConstGauge::new(reading.virtual_memory_bytes))?;
        put("threads", "Threads.", &ConstGauge::new(reading.threads))?;
        put("open_fds", "Open file descriptors.", &ConstGauge::new(reading.open_fds))?;
        put("max_fds", "File descriptors that may be open.", &ConstGauge::new(reading.max_fds))
    }
}
