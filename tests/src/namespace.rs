//! Network namespaces, named so that a person can look inside: `ip netns exec fl-4711-1-h1 bash`.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::claim::{self, Claim, NAMESPACES, Thing};
use crate::process::die_with_parent;

/// A network namespace, removed with its last clone.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    handle: File,
    _claim: Claim,
}

impl Namespace {
    /// Adds a namespace, with the loopback interface up and IPv6 silent. `label` must be unique in this
    /// process.
    ///
    /// # Errors
    /// It cannot be made, or this process is not root.
    pub fn add(label: &str) -> Result<Self> {
        claim::prepare()?;
        let name = claim::name(label);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let claim = Claim::new(Thing::Namespace(name.clone()));
        let handle = File::open(Path::new(NAMESPACES).join(&name))?;
        let namespace = Self { inner: Arc::new(Inner { name, handle, _claim: claim }) };
        for interface in ["all", "default"] {
            // Nothing that nobody asked for is on the wire.
            namespace.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace of this process, under a name that is removed with the last clone. `label` must be unique in this
    /// process.
    ///
    /// # Errors
    /// It cannot be named, or this process is not root.
    pub fn own(label: &str) -> Result<Self> {
        Self::of(label, std::process::id())
    }

    /// The namespace of a process, under a name that is removed with the last clone. `label` must be unique in this
    /// process.
    ///
    /// # Errors
    /// There is no such process, its namespace cannot be named, or this process is not root.
    pub fn of(label: &str, pid: u32) -> Result<Self> {
        claim::prepare()?;
        let name = claim::name(label);
        run(Command::new("ip").args(["netns", "attach", &name, &pid.to_string()]))?;
        let claim = Claim::new(Thing::Namespace(name.clone()));
        let handle = File::open(Path::new(NAMESPACES).join(&name))?;
        Ok(Self { inner: Arc::new(Inner { name, handle, _claim: claim }) })
    }

    /// The namespace that a file stands for, under a name that is removed with the last clone. `label` must be unique in
    /// this process.
    ///
    /// # Errors
    /// It cannot be named, or this process is not root.
    pub fn of_file(label: &str, file: &Path) -> Result<Self> {
        claim::prepare()?;
        let name = claim::name(label);
        let place = Path::new(NAMESPACES).join(&name);
        File::create(&place)?;
        let claim = Claim::new(Thing::Namespace(name.clone()));
        run(Command::new("mount").arg("--bind").arg(file).arg(&place))?;
        let handle = File::open(&place)?;
        Ok(Self { inner: Arc::new(Inner { name, handle, _claim: claim }) })
    }

    /// Its name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A program that will run in it. Only the network is the namespace's: `/sys/fs/bpf` stays visible,
    /// which `ip netns exec` hides.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let handle = self.inner.handle.try_clone()?;
        let mut command = Command::new(program);
        die_with_parent(&mut command);
        // SAFETY: the closure runs between fork and exec; it only makes a system call and allocates nothing.
        unsafe { command.pre_exec(move || Ok(setns(&handle, CloneFlags::CLONE_NEWNET)?)) };
        Ok(command)
    }

    /// Runs a program with arguments divided by spaces and returns what it prints.
    ///
    /// # Errors
    /// The program is missing, or fails; then with what it printed to standard error.
    pub fn run(&self, program: &str, arguments: &str) -> Result<String> {
        run(self.command(program)?.args(arguments.split_whitespace()))
            .with_context(|| format!("in {}", self.name()))
    }

    /// Runs iproute2's `ip` and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.run("ip", arguments)
    }

    /// Runs `work` on a thread in it. Sockets made there stay the namespace's when they are used elsewhere.
    ///
    /// # Errors
    /// The namespace cannot be entered; `work` fails.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let enter = || {
            setns(&self.inner.handle, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", self.name()))?;
            work()
        };
        let joined = thread::scope(|scope| scope.spawn(enter).join());
        joined.map_err(|_| anyhow!("work in {} panicked", self.name()))?
    }

    /// Writes a value below `/proc/sys/net`.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(setting);
        self.within(|| fs::write(&path, value).with_context(|| format!("cannot set {}", path.display())))
    }

    /// What a file below `/proc/net` says in it.
    ///
    /// # Errors
    /// There is no such file.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        // Not /proc/self, which is the namespace of the process's first thread.
        let path = Path::new("/proc/thread-self/net").join(file);
        self.within(|| fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display())))
    }
}

/// Runs a program to its end and returns what it prints.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::path::Path;

    use super::Namespace;
    use crate::claim::NAMESPACES;

    #[test]
    fn programs_threads_and_settings_are_inside() {
        let namespace = Namespace::add("inside").unwrap();
        namespace.ip("address add 192.0.2.1/32 dev lo").unwrap();
        assert!(namespace.run("ip", "-brief address show lo").unwrap().contains("192.0.2.1"));
        let socket = namespace.within(|| Ok(UdpSocket::bind("192.0.2.1:0")?)).unwrap();
        assert!(socket.local_addr().is_ok());
        assert!(UdpSocket::bind("192.0.2.1:0").is_err(), "this thread is still outside");
        namespace.sysctl("ipv4/ip_forward", "1").unwrap();
        assert!(namespace.proc_net("dev").unwrap().contains("lo:"));
        assert!(!namespace.proc_net("dev").unwrap().contains("eth0"));
    }

    #[test]
    fn namespace_goes_with_the_last_clone() {
        let namespace = Namespace::add("clone").unwrap();
        let path = Path::new(NAMESPACES).join(namespace.name());
        let clone = namespace.clone();
        drop(namespace);
        assert!(path.exists());
        drop(clone);
        assert!(!path.exists());
    }

    #[test]
    fn own_namespace_is_where_this_process_is() {
        let own = Namespace::own("own").unwrap();
        let inside = own.within(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?)).unwrap();
        assert_eq!(inside, std::fs::read_link("/proc/self/ns/net").unwrap());
        let path = Path::new(NAMESPACES).join(own.name());
        assert!(path.exists());
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn failure_of_a_program_is_told() {
        let namespace = Namespace::add("failure").unwrap();
        let error = format!("{:#}", namespace.ip("link show eth7").unwrap_err());
        assert!(error.contains("eth7") && error.contains("does not exist"), "{error}");
    }
}
