//! The packages, each with what proves it present and what it is for: the one list of them.

use std::borrow::Cow;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::compiler::{self, MINIMUM};
use crate::workspace;

/// A package by Debian's name.
#[derive(Clone)]
pub struct Package {
    pub name: Cow<'static, str>,
    /// The name where there is no package of that one.
    pub otherwise: Option<&'static str>,
    pub proof: Proof,
    /// Completes "… is needed for".
    pub purpose: &'static str,
}

/// What is there when a package is: tests look for this, so that other ways of installing count too.
#[derive(Clone)]
pub enum Proof {
    /// A command on PATH or in a system folder.
    Command(&'static str),
    /// Such a command, and `command version` succeeds: Ubuntu has one that only says that another package is missing.
    Working(&'static str),
    /// A file.
    File(Cow<'static, str>),
    /// A compiler or a cargo, new enough for this workspace.
    Rust(&'static str),
}

/// What building the userspace, the demo and the tests need.
pub const TOOLS: &[Package] = &[
    command("gcc", "cc", "linking Rust programs and building their C parts"),
    file("libc6-dev", "/usr/include/stdio.h", "linking Rust programs and building their C parts"),
    command("protobuf-compiler", "protoc", "building the client of etcd's API"),
    file("libprotobuf-dev", "/usr/include/google/protobuf/descriptor.proto", "types that etcd's API imports"),
    command("etcd-server", "etcd", "demo and tests: each starts its own store of leases"),
    command("etcd-client", "etcdctl", "demo and tests: writing the network's configuration as a person does"),
    command("iproute2", "ip", "demo and tests: hosts and pods are network namespaces"),
    command("iputils-ping", "ping", "demo and tests: pods reach each other"),
    command("ethtool", "ethtool", "tests: checksum and segmentation offloads, on and off"),
    command("iptables", "iptables", "flanneld and tests: masquerading and forwarding rules"),
    command("nftables", "nft", "flanneld and tests: masquerading and forwarding rules"),
    // Before 25.04, Ubuntu has it in the package of each kernel's tools.
    Package {
        name: Cow::Borrowed("bpftool"),
        otherwise: Some("linux-tools-generic"),
        proof: Proof::Working("bpftool"),
        purpose: "tests: programs and their places, as the kernel tells them",
    },
    file("systemd", "/lib/systemd/systemd", "tests: the shipped unit runs under systemd"),
    command("procps", "sysctl", "tests: settings of hosts and pods"),
    file("containernetworking-plugins", "/usr/lib/cni/bridge", "tests: the CNI plugin runs the usual ones"),
    command("prometheus", "promtool", "tests: metrics, alerts and dashboard are read by Prometheus itself"),
    command("docker.io", "dockerd", "tests: containers of Docker reach each other"),
    // Before Debian 13, it is in docker.io.
    Package {
        name: Cow::Borrowed("docker-cli"),
        otherwise: Some("docker.io"),
        proof: Proof::File(Cow::Borrowed("/usr/bin/docker")),
        purpose: "tests: Docker's command line",
    },
    command("podman", "podman", "tests: containers of podman reach each other"),
    command("crun", "crun", "tests: running podman's containers"),
    command("iperf3", "iperf3", "tests and measurements: throughput between containers"),
    BUSYBOX,
];

/// A compiler that comes with the sources of `core`, as Debian packages it to build browsers.
pub const DEBIAN_RUST: &[Package] = &[
    rust("rustc-web", compiler::DEBIAN_RUSTC, "compiling the kernel programs"),
    rust("cargo-web", compiler::DEBIAN_CARGO, "compiling the kernel programs"),
    file("rust-web-src", compiler::DEBIAN_SOURCES, "building Rust's core library for the kernel"),
];

/// What guests with other kernels need.
pub const GUESTS: &[Package] = &[
    command("qemu-system-x86", "qemu-system-x86_64", "guests: playing their machine"),
    BUSYBOX,
    command("kmod", "depmod", "guests: finding and loading modules"),
    command("xz-utils", "xz", "guests: unpacking modules"),
    command("zstd", "zstd", "guests: unpacking modules"),
    command("binutils", "strip", "guests: making programs small"),
    SETPRIV,
    DEBIAN_KEYS,
    file("netbase", "/etc/protocols", "guests: names of protocols"),
];

/// What building Kubernetes needs.
pub const KUBERNETES: &[Package] = &[
    command("golang-go", "go", "Kubernetes: compiling it"),
    command("make", "make", "Kubernetes: building it"),
    command("rsync", "rsync", "Kubernetes: building it"),
    command("dpkg-dev", "dpkg-source", "Kubernetes: unpacking its source"),
    file(
        "golang-github-modern-go-reflect2-dev",
        "/usr/share/gocode/src/github.com/modern-go/reflect2/reflect2.go",
        "Kubernetes: a library that fits today's Go",
    ),
    DEBIAN_KEYS,
];

/// What nodes of a Kubernetes cluster run beside its own programs, and what is in the images of their pods.
pub const NODES: &[Package] = &[
    command("containerd", "containerd", "nodes: running containers"),
    command("runc", "runc", "nodes: running containers"),
    command("conntrack", "conntrack", "nodes: kube-proxy forgets connections to servers that are gone"),
    command("curl", "curl", "nodes: asking services"),
    command("netcat-openbsd", "nc", "nodes: asking services"),
    SETPRIV,
];

/// What trying setup in bare systems needs.
pub const BARE_ROOTS: &[Package] = &[
    command("mmdebstrap", "mmdebstrap", "bare systems: making them"),
    command("e2fsprogs", "mkfs.ext4", "bare systems: their disk"),
    command("mount", "mount", "bare systems: their disk"),
    command("git", "git", "bare systems: the project's files"),
    SETPRIV,
    DEBIAN_KEYS,
];

const BUSYBOX: Package =
    command("busybox-static", "busybox", "guests and containers: their shell and small commands");
const SETPRIV: Package = command(
    "util-linux",
    "setpriv",
    "guests and bare systems: ending them with the command that started them",
);
const DEBIAN_KEYS: Package = file(
    "debian-archive-keyring",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "guests and bare systems: checking Debian's packages",
);

/// The libraries of one major version of LLVM, to build a linker with.
pub fn llvm(major: u32) -> [Package; 2] {
    const PURPOSE: &str = "building bpf-linker, the linker of the kernel programs";
    let package = |name, file| Package {
        name,
        otherwise: None,
        proof: Proof::File(Cow::Owned(file)),
        purpose: PURPOSE,
    };
    let folder = compiler::llvm_prefix(major);
    [
        package(format!("llvm-{major}-dev").into(), format!("{folder}/include/llvm-c/Core.h")),
        package(format!("libpolly-{major}-dev").into(), format!("{folder}/lib/libPolly.a")),
    ]
}

const fn command(name: &'static str, command: &'static str, purpose: &'static str) -> Package {
    Package { name: Cow::Borrowed(name), otherwise: None, proof: Proof::Command(command), purpose }
}

const fn file(name: &'static str, path: &'static str, purpose: &'static str) -> Package {
    Package { name: Cow::Borrowed(name), otherwise: None, proof: Proof::File(Cow::Borrowed(path)), purpose }
}

const fn rust(name: &'static str, program: &'static str, purpose: &'static str) -> Package {
    Package { name: Cow::Borrowed(name), otherwise: None, proof: Proof::Rust(program), purpose }
}

impl Package {
    pub fn is_present(&self) -> bool {
        match &self.proof {
            Proof::Command(command) => workspace::find(command).is_some(),
            Proof::Working(command) => workspace::find(command).is_some_and(|path| tells_version(&path)),
            Proof::File(path) => Path::new(&**path).exists(),
            Proof::Rust(program) => compiler::version_of(program).is_some_and(|found| found >= MINIMUM),
        }
    }
}

impl Proof {
    pub fn shown(&self) -> String {
        match self {
            Self::Command(command) => (*command).to_owned(),
            Self::Working(command) => format!("{command} that works"),
            Self::File(path) => path.to_string(),
            Self::Rust(program) => format!("{program} {}.{} or later", MINIMUM.0, MINIMUM.1),
        }
    }
}

fn tells_version(program: &Path) -> bool {
    let version = Command::new(program).arg("version").stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.status.success())
}

/// One line for each package: whether it is there, what proves it, its name on Debian, its purpose.
pub fn list(packages: &[Package]) -> String {
    let lines = packages.iter().map(|package| {
        let state = if package.is_present() { "found" } else { "MISSING" };
        let (proof, name, purpose) = (package.proof.shown(), &package.name, package.purpose);
        format!("  {state:<7} {proof} (Debian's package {name}) for {purpose}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::{
        BARE_ROOTS, DEBIAN_RUST, GUESTS, Package, Proof, TOOLS, command, file, list, llvm, tells_version,
    };

    fn all() -> Vec<Package> {
        [TOOLS, DEBIAN_RUST, GUESTS, BARE_ROOTS, &llvm(22)].concat()
    }

    #[test]
    fn each_package_has_one_proof_and_each_proof_one_package() {
        let all: HashSet<_> = all()
            .into_iter()
            .map(|package| (package.name.clone(), package.proof.shown(), package.purpose))
            .collect();
        let names: HashSet<_> = all.iter().map(|(name, ..)| name).collect();
        let proofs: HashSet<_> = all.iter().map(|(_, proof, _)| proof).collect();
        assert_eq!((names.len(), proofs.len()), (all.len(), all.len()));
    }

    #[test]
    fn every_file_that_proves_a_package_has_an_absolute_path() {
        for package in all() {
            if let Proof::File(path) = &package.proof {
                assert!(path.starts_with('/'), "{}: {path}", package.name);
            }
        }
    }

    #[test]
    fn the_llvm_packages_follow_the_compiler() {
        let [llvm, polly] = llvm(23);
        assert_eq!((&*llvm.name, &*polly.name), ("llvm-23-dev", "libpolly-23-dev"));
        assert_eq!(polly.proof.shown(), "/usr/lib/llvm-23/lib/libPolly.a");
    }

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_missing() {
        let packages = [
            command("dash", "sh", "scripts"),
            file("none", "/no/such/file", "nothing"),
            command("nobody", "no-such-command-here", "nothing"),
        ];
        assert_eq!(packages.iter().map(Package::is_present).collect::<Vec<_>>(), [true, false, false]);
        let list = list(&packages);
        assert!(list.starts_with("  found   sh (Debian's package dash) for scripts\n"), "{list}");
        assert!(list.contains("\n  MISSING /no/such/file (Debian's package none) for nothing\n"), "{list}");
    }

    #[test]
    fn a_program_that_only_says_what_is_missing_does_not_work() {
        assert!(tells_version(Path::new("/bin/true")));
        assert!(!tells_version(Path::new("/bin/false")) && !tells_version(Path::new("/no/such/file")));
    }
}
