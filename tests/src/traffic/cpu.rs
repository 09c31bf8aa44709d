//! CPU time of the threads that carry traffic, so that other programs on the machine do not count.
//!
//! A packet between two network namespaces is carried by the thread that sends it, by the one that receives it, by the
//! kernel's threads for deferred work (`ksoftirqd`), and by proxies if there are any. The kernel gives the time of each
//! in nanoseconds. Work that interrupts a thread is part of that thread's time, unless the kernel accounts for
//! interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`): then it is in `/proc/stat`.

use std::fs;
use std::ops::{Add, Sub};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, gettid, sysconf};

/// Threads that carry traffic, by what they do.
#[derive(Clone, Debug, Default)]
pub struct Carriers {
    senders: Vec<PathBuf>,
    receivers: Vec<PathBuf>,
    between: Vec<PathBuf>,
}

/// CPU time by what it was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// By threads that send, with what the kernel does on their behalf: often the packet's whole path.
    pub senders: Duration,
    /// By threads that receive.
    pub receivers: Duration,
    /// By the kernel's own threads, and by proxies.
    pub between: Duration,
}

impl CpuTime {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.senders + self.receivers + self.between
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            senders: self.senders.saturating_sub(before.senders),
            receivers: self.receivers.saturating_sub(before.receivers),
            between: self.between.saturating_sub(before.between),
        }
    }
}

impl Carriers {
    /// The kernel's threads, and processes between the ends, each of one thread.
    ///
    /// # Errors
    /// The kernel does not list its threads.
    pub fn new(proxies: &[u32]) -> Result<Self> {
        let mut between = kernel_threads()?;
        between.extend(proxies.iter().map(|pid| Path::new("/proc").join(pid.to_string())));
        Ok(Self { between, ..Self::default() })
    }

    /// Also a thread of this process that sends.
    pub fn add_sender(&mut self, thread: Pid) {
        self.senders.push(own(thread));
    }

    /// Also a thread of this process that receives.
    pub fn add_receiver(&mut self, thread: Pid) {
        self.receivers.push(own(thread));
    }

    /// What they have used so far.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn used(&self) -> Result<CpuTime> {
        let of = |threads: &[PathBuf]| -> Result<Duration> {
            threads.iter().map(|thread| used_by(thread)).try_fold(Duration::ZERO, |sum, of| Ok(sum.add(of?)))
        };
        let apart =
            accounted_apart(&fs::read_to_string("/proc/stat")?).context("/proc/stat is not understood")?;
        Ok(CpuTime {
            senders: of(&self.senders)?,
            receivers: of(&self.receivers)?,
            between: of(&self.between)? + apart,
        })
    }
}

fn own(thread: Pid) -> PathBuf {
    Path::new("/proc/self/task").join(thread.to_string())
}

/// The first field is the time on a CPU, in nanoseconds.
fn used_by(thread: &Path) -> Result<Duration> {
    let path = thread.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
    nanoseconds.map(Duration::from_nanos).with_context(|| format!("{} says {text}", path.display()))
}

fn kernel_threads() -> Result<Vec<PathBuf>> {
    let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let named = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    let threads: Vec<PathBuf> = processes.filter(named).collect();
    if threads.is_empty() {
        Err(anyhow!("the kernel shows no ksoftirqd: is /proc that of the machine?"))
    } else {
        Ok(threads)
    }
}

/// What interrupts used, where the kernel takes it out of the threads' time: its count of hard interrupts
/// then moves. The sixth and the seventh number of the first line.
fn accounted_apart(stat: &str) -> Option<Duration> {
    let mut fields = stat.lines().next()?.split_whitespace().skip(6);
    let (hard, soft): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some(if hard == 0 { Duration::ZERO } else { Duration::from_millis((hard + soft) * 1000 / per_second) })
}

/// Keeps the calling thread on one of the CPUs it may use: the `index`-th, or the last if there are fewer.
/// Returns the thread's id.
///
/// # Errors
/// The kernel refuses.
pub fn stay_on_cpu(index: usize) -> Result<Pid> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let cpu = cpus.get(index).or_else(|| cpus.last()).context("this thread may use no CPU")?;
    let mut one = CpuSet::new();
    one.set(*cpu)?;
    sched_setaffinity(this, &one)?;
    Ok(gettid())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::{Carriers, accounted_apart, stay_on_cpu};

    #[test]
    fn time_is_told_by_role() {
        let mut carriers = Carriers::new(&[]).unwrap();
        let (told, tid) = std::sync::mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let busy = thread::spawn(move || {
            told.send(stay_on_cpu(0).unwrap()).unwrap();
            while !stop.load(Ordering::Relaxed) {}
        });
        carriers.add_sender(tid.recv().unwrap());
        let before = carriers.used().unwrap();
        thread::sleep(Duration::from_millis(200));
        let used = carriers.used().unwrap() - before;
        is_over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        assert!(used.senders > Duration::from_millis(20), "{used:?}");
        assert_eq!(used.receivers, Duration::ZERO);
        assert!(used.total() >= used.senders);
    }

    #[test]
    fn interrupts_count_where_they_are_accounted_apart() {
        assert_eq!(accounted_apart("cpu  1 2 3 4 5 0 700 8 0 0\n"), Some(Duration::ZERO));
        assert_eq!(accounted_apart("cpu  1 2 3 4 5 100 700 8 0 0\n"), Some(Duration::from_secs(8)));
        assert_eq!(accounted_apart("cpu"), None);
    }
}
