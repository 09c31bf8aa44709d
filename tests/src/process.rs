//! Programs that run beside the tests.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::claim::{Claim, Thing};
use crate::wait;

/// How long a process that is dropped has to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// A running program, ended when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    claim: Option<Claim>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to the file `log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A Ctrl-C at the terminal is for the run, which ends its programs in order.
        command.process_group(0);
        let child = start(command).with_context(|| format!("cannot start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let claim = Some(Claim::new(Thing::Child(pid)));
        Ok(Self { name: name.to_owned(), child, claim, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.release();
                bail!("{} has ended ({status}); its log ends with:\n{}", self.name, self.log_tail(20))
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Asks it to end, and returns how it did.
    ///
    /// # Errors
    /// It runs on after `limit`, [stretched](wait::stretched).
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_end(limit).context("SIGTERM was sent")
    }

    /// Waits until it ends by itself, and returns how it did.
    ///
    /// # Errors
    /// It runs on after `limit`, [stretched](wait::stretched).
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let limit = wait::stretched(limit);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                self.release();
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(anyhow!("{} runs on after {limit:?}; its log ends with:\n{}", self.name, self.log_tail(20)))
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It had ended by itself before.
    pub fn kill(&mut self) -> Result<()> {
        self.check_running()?;
        self.child.kill()?;
        let status = self.child.wait()?;
        self.release();
        match status.signal() {
            Some(9) => Ok(()),
            _ => bail!("{} ended before it was killed ({status})", self.name),
        }
    }

    /// The last lines it has printed.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    /// Where its threads are in the kernel, for one that says nothing: what they wait for, system call and stack.
    #[must_use]
    pub fn whereabouts(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let told = |task: fs::DirEntry| {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let [state, wait, call, stack] = ["stat", "wchan", "syscall", "stack"].map(read);
            format!("{}\n  waits in {wait:?}, system call {}\n{stack}", state.trim(), call.trim())
        };
        tasks.map(told).collect()
    }

    fn release(&mut self) {
        if let Some(claim) = self.claim.take() {
            claim.release();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.claim.is_none() {
            return;
        }
        if thread::panicking() {
            eprintln!("the log of {} ends with:\n{}", self.name, self.log_tail(30));
        }
        if self.terminate(GRACE).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
            self.release();
        }
    }
}

/// The last lines of a log file.
#[must_use]
pub fn log_tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(lines).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Makes the program die with this process, however it dies.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec; it only makes a system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts a program from a thread that lives as long as the process: the kernel takes the end of the
/// thread that started a program for the end of its parent.
fn start(mut command: Command) -> Result<Child> {
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    die_with_parent(&mut command);
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                drop(answer.send(command.spawn()));
            }
        });
        Mutex::new(orders)
    });
    let (answer, outcome) = channel();
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer))?;
    Ok(outcome.recv()??)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::Process;
    use crate::wait;

    fn shell(script: &str) -> (Process, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Process::spawn("shell", command, &directory.path().join("log")).unwrap(), directory)
    }

    #[test]
    fn end_of_a_process_is_told_with_its_log() {
        let (mut process, _directory) = shell("echo out; echo err >&2; exit 7");
        let mut failure = String::new();
        wait::until_true("its end", Duration::from_secs(5), || match process.check_running() {
            Ok(()) => false,
            Err(error) => {
                failure = error.to_string();
                true
            }
        })
        .unwrap();
        assert!(failure.contains("exit status: 7") && failure.ends_with("out\nerr"), "{failure}");
    }

    #[test]
    fn process_outlives_the_thread_that_asked_for_it() {
        let spawn = || shell("trap 'exit 0' TERM; echo waiting; while true; do sleep 0.01; done");
        let (mut process, _directory) = std::thread::spawn(spawn).join().unwrap();
        let waits = || process.log_tail(1).contains("waiting");
        wait::until_true("it to wait for the signal", Duration::from_secs(5), waits).unwrap();
        process.check_running().unwrap();
        assert_eq!(process.terminate(Duration::from_secs(5)).unwrap().code(), Some(0));
    }

    #[test]
    fn whereabouts_of_a_process_that_waits_are_told() {
        let (process, _directory) = shell("exec sleep 5");
        wait::until_true("it to wait", Duration::from_secs(5), || {
            let told = process.whereabouts();
            told.contains("(sleep)") && told.contains("nanosleep")
        })
        .unwrap();
    }
}
