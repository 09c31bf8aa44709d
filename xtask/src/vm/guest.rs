//! One guest: a kernel, files and a command, from boot to exit code.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::channels::{self, Stream};
use super::initramfs::Initramfs;
use super::kernel::{self, Kernel};
use super::modules::{self, Selection};
use super::programs::{self, FOLDER, Program};
use super::qemu::{Device, Machine};
use crate::step;

/// How many lines of the console an error repeats.
const TAIL: usize = 40;
/// How often a guest that says nothing is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How long qemu may take to end after the guest has.
const GRACE: Duration = Duration::from_secs(10);

/// What is booted.
pub struct Guest<'a> {
    pub kernel: &'a Kernel,
    pub machine: Machine,
    /// Put into `/flannel/bin`, which is on PATH.
    pub programs: &'a [Program],
    /// Further files of this machine, with their paths in the guest.
    pub files: &'a [(PathBuf, PathBuf)],
    /// Names of further modules.
    pub modules: &'a [String],
    pub devices: &'a [Device],
    /// Variables of the command.
    pub environment: Vec<(String, String)>,
    /// From qemu's start to the exit code.
    pub time_limit: Duration,
}

/// How the command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: u8,
    /// From qemu's start until the command was started.
    pub boot: Duration,
    /// How long the command took.
    pub command: Duration,
    pub initramfs_bytes: u64,
    /// Modules by name that this kernel has not.
    pub missing: Vec<String>,
    /// What the kernel said while a command ran that failed.
    pub kernel_log: String,
}

/// A guest that runs.
struct Running {
    qemu: Child,
    /// Its files, which it has read and connected to before the guest says anything.
    folder: Option<TempDir>,
    said: Receiver<(Stream, Vec<u8>)>,
    started: Instant,
    time_limit: Duration,
    console: Vec<u8>,
    status: Vec<u8>,
}

impl Guest<'_> {
    /// Boots, runs `command`, and gives what it prints to `show` as it comes.
    ///
    /// # Errors
    /// The guest does not come up, panics, or says no exit code within the time limit: with the end of its console.
    pub fn run(&self, command: &[String], mut show: impl FnMut(Stream, &[u8])) -> Result<Outcome> {
        let folder =
            tempfile::Builder::new().prefix("flannel-vm-").tempdir().context("cannot make a folder")?;
        let selection = Selection::of(self.kernel, self.names())?;
        let initramfs = self.initramfs(command, &selection, &folder)?;
        let initramfs_bytes = fs::metadata(&initramfs).context("cannot read the initramfs")?.len();
        let mut running = self.boot(&initramfs, folder)?;
        let ended = running.run(&mut show);
        running.end();
        let (boot, command, code) = match ended {
            Ok(ended) => ended,
            Err(error) => bail!("{error:#}; {}", running.last_words()),
        };
        let kernel_log = kernel_log(&running.console);
        Ok(Outcome { code, boot, command, initramfs_bytes, missing: selection.missing, kernel_log })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        modules::WANTED.iter().copied().chain(self.modules.iter().map(String::as_str))
    }

    /// Packs everything into one file in `folder`.
    fn initramfs(&self, command: &[String], selection: &Selection, folder: &TempDir) -> Result<PathBuf> {
        let mut initramfs = Initramfs::new();
        initramfs.text("/init", include_str!("init.sh"), true);
        initramfs.text("/flannel/command", &self.script(command), true);
        initramfs.text(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            false,
        );
        initramfs.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n", false);
        initramfs.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", false);
        initramfs.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n", false);
        programs::pack(self.programs, &mut initramfs)?;
        for (host, guest) in self.files {
            initramfs.file(host, guest)?;
        }
        self.pack_modules(selection, folder, &mut initramfs)?;
        let path = folder.path().join("initramfs.cpio");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        initramfs.write(BufWriter::new(file))?;
        Ok(path)
    }

    /// With an index of those modules alone: one that is not there must not stand for an alias.
    fn pack_modules(&self, selection: &Selection, folder: &TempDir, initramfs: &mut Initramfs) -> Result<()> {
        let release = Path::new("lib/modules").join(&self.kernel.release);
        let stage = folder.path().join(&release);
        let indexes = ["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(str::to_owned);
        for file in selection.files.iter().chain(&indexes) {
            let (from, to) = (self.kernel.modules.join(file), stage.join(file));
            if !from.exists() {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&stage)).context("cannot make a folder for modules")?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        kernel::depmod(&stage)?;
        for file in kernel::files(&stage)? {
            let path = file.strip_prefix(folder.path()).unwrap_or(&file);
            initramfs.file(&file, &Path::new("/").join(path))?;
        }
        Ok(())
    }

    /// The command with its variables, as a script.
    fn script(&self, command: &[String]) -> String {
        let mut script = format!("#!/bin/busybox sh\nexport FLANNEL_BIN_DIR={FOLDER}\n");
        for (name, value) in &self.environment {
            script += &format!("export {name}={}\n", step::quoted(value));
        }
        let words: Vec<String> = command.iter().map(|word| step::quoted(word)).collect();
        script + "exec " + &words.join(" ") + "\n"
    }

    fn boot(&self, initramfs: &Path, folder: TempDir) -> Result<Running> {
        let said = channels::listen(folder.path())?;
        let ports = Stream::PORTS.map(Stream::name);
        let image = &self.kernel.image;
        let mut qemu = self.machine.command(image, initramfs, folder.path(), &ports, self.devices);
        let shown = step::shown(&qemu);
        let qemu = qemu.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
        let (started, time_limit) = (Instant::now(), self.time_limit);
        let folder = Some(folder);
        Ok(Running { qemu, folder, said, started, time_limit, console: Vec::new(), status: Vec::new() })
    }
}

impl Running {
    /// Waits for the exit code. Tells how long boot and command took, too.
    fn run(&mut self, show: &mut impl FnMut(Stream, &[u8])) -> Result<(Duration, Duration, u8)> {
        let mut booted = None;
        loop {
            let Some((stream, bytes)) = self.next()? else {
                bail!(
                    "the guest ended {}",
                    if booted.is_some() { "before its command" } else { "before it was up" }
                );
            };
            self.folder = None;
            match stream {
                Stream::Console => self.console.extend_from_slice(&bytes),
                Stream::Status => self.status.extend_from_slice(&bytes),
                Stream::Stdout | Stream::Stderr => {}
            }
            show(stream, &bytes);
            let status = String::from_utf8_lossy(&self.status);
            if booted.is_none() && status.starts_with("started\n") {
                booted = Some(self.started.elapsed());
            }
            if let (Some(code), Some(boot)) = (exit_code(&status), booted) {
                let command = self.started.elapsed() - boot;
                self.rest(show);
                return Ok((boot, command, code));
            }
        }
    }

    /// What is said next; none after the end of the guest.
    fn next(&mut self) -> Result<Option<(Stream, Vec<u8>)>> {
        loop {
            let left = self.time_limit.saturating_sub(self.started.elapsed());
            match self.said.recv_timeout(left.min(LOOK)) {
                Ok(said) => return Ok(Some(said)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    bail!("the guest did not end within {} s (--time-limit)", self.time_limit.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            // It may end before it has connected to all sockets.
            if self.qemu.try_wait().context("cannot wait for qemu")?.is_some() {
                return Ok(self.said.try_recv().ok());
            }
        }
    }

    /// Takes in what was said before the exit code and came after it on another stream.
    fn rest(&mut self, show: &mut impl FnMut(Stream, &[u8])) {
        let end = Instant::now() + GRACE;
        while let Ok((stream, bytes)) = self.said.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if stream == Stream::Console {
                self.console.extend_from_slice(&bytes);
            }
            show(stream, &bytes);
        }
    }

    /// Ends qemu, if it has not ended.
    fn end(&mut self) {
        // It cannot fail but for a process that is gone.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }

    /// What qemu said, and the end of the console.
    fn last_words(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.qemu.stderr.take() {
            drop(stderr.read_to_string(&mut said));
        }
        let console = String::from_utf8_lossy(&self.console);
        let lines: Vec<&str> = said.lines().chain(console.lines()).map(str::trim_end).collect();
        if lines.is_empty() {
            return "its console said nothing".to_owned();
        }
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        let tail: String = tail.iter().map(|line| format!("\n    {line}")).collect();
        format!("its console ended with:{tail}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The console of a quiet kernel, except its end.
fn kernel_log(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.ends_with("reboot: Power down"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The code in the line `exit CODE`, once that is complete.
fn exit_code(status: &str) -> Option<u8> {
    let (code, _) = status.split_once("exit ")?.1.split_once('\n')?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{exit_code, kernel_log};

    #[test]
    fn the_end_of_a_guest_is_nothing_that_its_kernel_says_of_a_command() {
        assert_eq!(kernel_log(b"[ 1.0] veth: oh\r\n[ 2.0] reboot: Power down\r\n"), "[ 1.0] veth: oh");
        assert_eq!(kernel_log(b"[ 2.0] reboot: Power down\r\n"), "");
    }

    #[test]
    fn the_code_is_read_once_its_line_is_complete() {
        assert_eq!(exit_code("started\nexit 137\n"), Some(137));
        assert_eq!(exit_code("started\nexit 1"), None);
        assert_eq!(exit_code("started\n"), None);
        assert_eq!(exit_code("started\nexit \n"), None);
    }
}
