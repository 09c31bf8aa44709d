//! The daemon under test, on a host.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flannel_datapath::{Pinned, Support, pinned_programs};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::claim::{self, BPFFS, Claim, Thing};
use crate::container::Manifest;
use crate::fallback::Fallback;
use crate::ledger::Ledger;
use crate::network::{Host, Node, SubnetFile};
use crate::process::Process;
use crate::{binaries, wait};

/// How long it may take to be ready, on a machine that does much else.
const START: Duration = Duration::from_secs(30);
/// How long it may take until the ports of new pods are served.
const ATTACH: Duration = Duration::from_secs(10);
/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// The settings of the daemons of one network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where etcd is.
    pub endpoint: String,
    /// The network's prefix in etcd.
    pub prefix: String,
    /// More flags, such as `--guard=off`.
    pub flags: Vec<String>,
}

/// A `flanneld` on a host, with its own subnet file, state file and pin directory. Dropped, it ends, and so does its
/// datapath's pinning.
#[derive(Debug)]
pub struct Daemon {
    process: Option<Process>,
    host: Host,
    settings: Settings,
    /// Whether it was last started without the bypass.
    is_without_bypass: bool,
    directory: PathBuf,
    pin_dir: PathBuf,
    service_manager: UnixDatagram,
    /// Words before the command.
    by: Vec<String>,
    /// More variables of its environment.
    variables: Vec<(String, String)>,
    ledger: Option<Ledger>,
    socket: PathBuf,
    _claims: [Claim; 3],
}

impl Daemon {
    /// Starts the daemon; it will be ready later.
    ///
    /// # Errors
    /// There is no such program, or it cannot be started.
    pub fn start(host: &Host, settings: Settings) -> Result<Self> {
        Self::start_as(host, "flanneld", settings)
    }

    /// Starts another daemon on a host, whose directories have that name.
    ///
    /// # Errors
    /// There is no such program, or it cannot be started.
    pub fn start_as(host: &Host, name: &str, settings: Settings) -> Result<Self> {
        Self::start_in(host, name, settings, Vec::new())
    }

    /// The same with these variables in its environment.
    ///
    /// # Errors
    /// There is no such program, or it cannot be started.
    pub fn start_in(
        host: &Host,
        name: &str,
        settings: Settings,
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut daemon = Self::prepare(host, name, settings, variables)?;
        daemon.restart()?;
        Ok(daemon)
    }

    /// The same, which [`Daemon::restart`] is still to start.
    ///
    /// # Errors
    /// Its files cannot be made.
    pub fn prepare(
        host: &Host,
        name: &str,
        settings: Settings,
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let label = format!("{}-{name}", host.label());
        let (directory, claim) = claim::directory(&label)?;
        let pin_dir = Path::new(BPFFS).join(claim::name(&label));
        let pins = Claim::new(Thing::Directory(pin_dir.clone()));
        // One that is killed leaves it behind.
        let socket = host.namespace.within(|| Ok(flannel_control::socket::path(&settings.prefix)?))?;
        let left_behind = Claim::new(Thing::File(socket.clone()));
        let service_manager = UnixDatagram::bind(directory.join("notify"))?;
        service_manager.set_nonblocking(true)?;
        Ok(Self {
            process: None,
            host: host.clone(),
            settings,
            is_without_bypass: false,
            directory,
            pin_dir,
            service_manager,
            by: Vec::new(),
            variables,
            ledger: None,
            socket,
            _claims: [pins, claim, left_behind],
        })
    }

    /// Starts it again, with what it left.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("flanneld on {} runs already", self.host.name);
        }
        // Notifications of the last daemon are not about this one.
        self.drop_notifications();
        let program = binaries::find("flanneld")?;
        let mut command = match self.by.split_first() {
            Some((first, others)) => {
                let mut command = self.host.namespace.command(first)?;
                command.args(others).arg(program);
                command
            }
            None => self.host.namespace.command(program)?,
        };
        command.env("NOTIFY_SOCKET", self.directory.join("notify"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg(format!("--etcd-endpoints={}", self.settings.endpoint));
        command.arg(format!("--etcd-prefix={}", self.settings.prefix));
        command.arg(format!("--subnet-file={}", self.subnet_file().display()));
        command.arg(format!("--state-file={}", self.state_file().display()));
        command.arg(format!("--pin-dir={}", self.pin_dir.display()));
        let mut flags = self.settings.flags.clone();
        if !flags.iter().any(|flag| flag.starts_with("--iface=")) {
            command.arg("--iface=eth0");
        }
        if let Some(fallback) = Fallback::forced()? {
            fallback.force(&mut command, &mut flags, &self.directory)?;
        }
        let is_told = flags.iter().any(|flag| flag == "--pod-bypass=off");
        self.is_without_bypass = is_told || !Support::of_this_kernel().check_mtu;
        command.args(flags);
        let name = format!("flanneld on {}", self.host.name);
        self.process = Some(Process::spawn(&name, command, &self.log())?);
        Ok(())
    }

    /// Reads what it has notified its service manager of, and forgets it.
    fn drop_notifications(&self) {
        while self.service_manager.recv(&mut [0; 256]).is_ok() {}
    }

    /// Waits until it has notified its service manager that it is ready, and returns its subnet file.
    ///
    /// # Errors
    /// It has ended, or is not ready in time; then with the end of its log.
    pub fn wait_ready(&mut self) -> Result<SubnetFile> {
        let host = &self.host.name;
        let process = self.process.as_mut().with_context(|| format!("flanneld on {host} does not run"))?;
        let service_manager = &self.service_manager;
        let ready = wait::until(&format!("flanneld on {host} to be ready"), START, || {
            if let Err(ended) = process.check_running() {
                return Ok(Err(ended));
            }
            let mut message = [0; 256];
            let length = service_manager.recv(&mut message).context("it has notified nothing")?;
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.lines().any(|line| line == "READY=1") {
                Ok(Ok(()))
            } else {
                bail!("it has notified {text:?}")
            }
        });
        ready.with_context(|| {
            let (whereabouts, log) = (process.whereabouts(), process.log_tail(20));
            format!("its threads: {whereabouts}\nthe log of flanneld on {host} ends with:\n{log}")
        })??;
        self.note_programs()?;
        SubnetFile::read(&self.subnet_file())
    }

    /// Waits until the bridge of a node that was just made, and the ports of its pods, have their programs. Under
    /// clsact each gets a qdisc for that, and adding it makes the kernel itself lose packets.
    ///
    /// # Errors
    /// They have none in time.
    pub fn wait_attached(&self, node: &Node) -> Result<()> {
        let count = |pinned: &[Pinned], program| pinned.iter().filter(|pin| pin.program == program).count();
        let known = pinned_programs(&self.pin_dir)?;
        let tunnels = count(&known, "udp_encap") + count(&known, "vxlan_encap");
        let is_bypassed = tunnels + count(&known, "direct_out") > 0 && !self.is_without_bypass;
        let pods = if is_bypassed { node.pods.len() } else { 0 };
        let wanted = [("bridge", tunnels), ("pod_in", pods), ("pod_out", pods)];
        wait::until(&format!("the pods of {} to be served", self.host.name), ATTACH, || {
            let pinned = pinned_programs(&self.pin_dir)?;
            for (program, wanted) in wanted {
                let found = count(&pinned, program);
                ensure!(found >= wanted, "{program} is in {found} of {wanted} places");
            }
            Ok(())
        })
    }

    /// Asks it to end, and returns how it did. The datapath stays.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let status = self.process.take().context("flanneld does not run")?.terminate(END)?;
        self.note_programs()?;
        Ok(status)
    }

    /// Waits until it ends by itself, and returns how it did.
    ///
    /// # Errors
    /// It does not run, or runs on after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process.take().context("flanneld does not run")?.wait_end(limit)?;
        self.note_programs()?;
        Ok(status)
    }

    /// Ends it at once. The datapath stays.
    ///
    /// # Errors
    /// It does not run, or had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("flanneld does not run")?.kill()?;
        self.note_programs()
    }

    /// Has the packets its programs see counted by the kernel, too.
    ///
    /// # Errors
    /// The kernel does not count.
    pub fn count_runs(&mut self) -> Result<()> {
        self.ledger = Some(Ledger::open(&self.pin_dir)?);
        Ok(())
    }

    /// Fails unless its programs, in all its lives, have counted every packet once; see [`Daemon::count_runs`].
    /// They are not compared again.
    ///
    /// # Errors
    /// The counts differ.
    pub fn settle(&mut self) -> Result<()> {
        self.ledger.take().map_or(Ok(()), |mut ledger| ledger.check())
    }

    /// Programs are replaced from one life to the next, and where the host changes under the daemon: whoever changes it
    /// more than once in a life notes those in between. See [`Daemon::count_runs`].
    ///
    /// # Errors
    /// A program cannot be opened.
    pub fn note_programs(&mut self) -> Result<()> {
        self.ledger.as_mut().map_or(Ok(()), Ledger::note)
    }

    /// Fails if it has ended by itself, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().context("flanneld does not run")?.check_running()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("flanneld does not run")?.signal(signal)
    }

    /// Stops it where it is until SIGCONT, and returns once none of its threads runs any more.
    ///
    /// # Errors
    /// It does not run, or goes on.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let threads = PathBuf::from(format!("/proc/{}/task", self.pid()?));
        // Each stops when it returns from the kernel: after a message that it was sending.
        let is_stopped = |thread: &Path| {
            fs::read_to_string(thread.join("status")).is_ok_and(|status| status.contains("\nState:\tT"))
        };
        wait::until_true("every thread of flanneld to stop", END, || {
            fs::read_dir(&threads).is_ok_and(|mut entries| {
                entries.all(|entry| entry.is_ok_and(|entry| is_stopped(&entry.path())))
            })
        })
    }

    /// Waits until its log says `text`.
    ///
    /// # Errors
    /// It has not after `limit`, with what it says instead.
    pub fn wait_log(&self, text: &str, limit: Duration) -> Result<()> {
        wait::until(&format!("the log to say {text:?}"), limit, || {
            let said = fs::read_to_string(self.log())?;
            ensure!(said.contains(text), "it says {said}");
            Ok(())
        })
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("flanneld does not run")?.pid())
    }

    /// From the next start on it never has other capabilities than these, by their names without `cap_`.
    pub fn bound_to(&mut self, capabilities: &[&str]) {
        let set: String = capabilities.iter().map(|capability| format!(",+{capability}")).collect();
        let words =
            ["setpriv", &format!("--bounding-set=-all{set}"), "--inh-caps=-all", "--ambient-caps=-all"];
        self.by = words.map(str::to_owned).to_vec();
    }

    /// From the next start on it runs as a container of such a manifest, with the capabilities and files of one.
    pub fn contained_as(&mut self, manifest: Manifest) {
        self.by = manifest.words(&self.directory);
    }

    /// From the next start on it may do everything.
    pub fn unbound(&mut self) {
        self.by = Vec::new();
    }

    /// From the next start on its service manager expects a sign of life within that time.
    pub fn watched_every(&mut self, limit: Duration) {
        self.by = vec!["env".to_owned(), format!("WATCHDOG_USEC={}", limit.as_micros())];
    }

    /// What it has notified its service manager of since it was asked last, one assignment each.
    #[must_use]
    pub fn notified(&self) -> Vec<String> {
        let mut assignments = Vec::new();
        let mut message = [0; 4096];
        while let Ok(length) = self.service_manager.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            assignments.extend(text.lines().map(str::to_owned));
        }
        assignments
    }

    /// From the next start on the kernel refuses it bpf(), with this error, as in many a container.
    ///
    /// # Errors
    /// The program that sees to it was not built.
    pub fn refused_bpf(&mut self, errno: Errno) -> Result<()> {
        let program = binaries::find("without-bpf")?;
        let program = program.to_str().context("the path of without-bpf is no text")?;
        self.by = vec![program.to_owned(), (errno as i32).to_string()];
        Ok(())
    }

    /// Flags for the next start.
    pub const fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Its subnet file.
    #[must_use]
    pub fn subnet_file(&self) -> PathBuf {
        self.directory.join("subnet.env")
    }

    /// Where it keeps what it knows of the network.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// Its pin directory.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its log, of all its starts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What `flannelctl` prints for it, running or not.
    ///
    /// # Errors
    /// `flannelctl` fails.
    pub fn ctl(&self, arguments: &str) -> Result<String> {
        let program = binaries::find("flannelctl")?;
        let program = program.to_str().context("the path of flannelctl is no text")?;
        self.host.namespace.run(program, &format!("--pin-dir {} {arguments}", self.pin_dir.display()))
    }

    /// Has `flannelctl trace` run with these flags, until it is dropped; what it prints comes into a file beside the log.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn trace(&self, flags: &str) -> Result<Process> {
        let mut command = self.host.namespace.command(binaries::find("flannelctl")?)?;
        command.arg(format!("--pin-dir={}", self.pin_dir.display())).arg("trace");
        command.args(flags.split_whitespace());
        Process::spawn(&format!("trace on {}", self.host.name), command, &self.directory.join("trace"))
    }

    /// What `flannelctl -o json` prints for it.
    ///
    /// # Errors
    /// `flannelctl` fails, or prints no JSON.
    pub fn ctl_json(&self, arguments: &str) -> Result<Value> {
        let text = self.ctl(&format!("-o json {arguments}"))?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Packets counted at a hook under a reason, both by their names in `flannelctl counters`.
    ///
    /// # Errors
    /// `flannelctl` fails, or knows no such counter.
    pub fn count(&self, hook: &str, reason: &str) -> Result<u64> {
        let answer = self.ctl_json("counters --all")?;
        let counters = answer["counters"].as_array().context("no counters")?;
        let counter = counters.iter().find(|counter| counter["hook"] == hook && counter["reason"] == reason);
        counter
            .and_then(|counter| counter["packets"].as_u64())
            .with_context(|| format!("no counter {hook} {reason}"))
    }
}
