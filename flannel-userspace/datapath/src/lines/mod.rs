//! Copies the lines that the programs write to the log.
//!
//! Programs write to a ring. Those of a daemon that is gone fill theirs and then lose their lines, which nobody reads;
//! the next daemon loads programs with a ring of their own.

mod limit;
mod line;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::{info, warn};

use self::limit::Limit;
use self::line::Line;
use super::{DatapathError, interface_name};

/// Pause between two looks into the ring, which has room for some hundred lines.
const PAUSE: Duration = Duration::from_millis(50);

/// Copies lines until it is dropped.
pub(super) struct Lines {
    is_over: Arc<AtomicBool>,
    /// The ring must be open for as long as programs can be loaded that write there.
    _logger: Arc<Mutex<EbpfLogger<Journal>>>,
}

impl Lines {
    /// Copies what the programs of `ebpf` write to the log, in a thread of its own: a sender whose packets are dropped
    /// must not keep the daemon busy.
    pub(super) fn carry(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let limit = Arc::new(Mutex::new(Limit::new(Instant::now())));
        let journal = Journal { limit: limit.clone() };
        let logger = EbpfLogger::init_with_logger(ebpf, journal)
            .map_err(|error| DatapathError::Lines(io::Error::other(error)))?;
        let logger = Arc::new(Mutex::new(logger));
        let is_over = Arc::new(AtomicBool::new(false));
        let lines = Self { is_over: is_over.clone(), _logger: logger.clone() };
        let carry = move || {
            flannel_privileges::enter_thread();
            while !is_over.load(Ordering::Relaxed) {
                sleep(PAUSE);
                logger.lock().unwrap_or_else(PoisonError::into_inner).flush();
                tell_left_out(limit.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now()));
            }
        };
        thread::Builder::new().name("datapath log".to_owned()).spawn(carry).map_err(DatapathError::Lines)?;
        Ok(lines)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Where aya-log's lines arrive.
struct Journal {
    limit: Arc<Mutex<Limit>>,
}

impl log::Log for Journal {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        tell_left_out(limit.pass(now));
        if limit.admits() {
            drop(limit);
            tell(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn tell_left_out(lines: u64) {
    if lines > 0 {
        warn!(lines, "left out lines about packets; flannelctl counters and flannelctl drops count all");
    }
}

fn tell(text: &str) {
    let Some(line) = Line::parse(text) else {
        warn!(text, "a program wrote a line that this flanneld cannot parse");
        return;
    };
    let Line { hook, reason, bytes, outer, inner, .. } = line;
    let interface = interface_name(line.interface).unwrap_or_else(|| line.interface.to_string());
    let (outer_source, outer_destination) = line::shown(outer);
    let (source, destination) = line::shown(inner);
    // The level of a message is a constant of its call site.
    if line.is_dropped() {
        warn!(
            %hook, %reason, interface, outer_source, outer_destination, source, destination, bytes,
            "dropped a packet"
        );
    } else {
        info!(
            %hook, %reason, interface, outer_source, outer_destination, source, destination, bytes,
            "left a packet to the stack"
        );
    }
}
