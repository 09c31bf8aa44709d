//! What a guest runs: the workspace's programs and suites, and commands of this machine with their libraries.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::initramfs::Initramfs;
use super::packages::output;
use crate::{step, workspace};

/// The folder of our programs in a guest.
pub const FOLDER: &str = "/flannel/bin";

/// Commands that programs and suites call. Where this machine has none of a name, busybox may have one.
const COMMANDS: &[&str] = &[
    "busybox",
    "modprobe",
    "depmod",
    "ip",
    "bridge",
    "tc",
    "ss",
    "ping",
    "etcd",
    "etcdctl",
    "nft",
    "ethtool",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "unshare",
    "nsenter",
];

/// Commands for people and for some tests, taken along from a machine that has them.
const EXTRAS: &[&str] =
    &["setpriv", "conntrack", "bpftool", "tcpdump", "strace", "capsh", "sysctl", "tar", "bash"];

/// Files and folders that the commands read.
const DATA: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib64/xtables",
    "/usr/lib/xtables",
    "/etc/iproute2",
    "/usr/share/iproute2",
    "/etc/protocols",
    "/etc/services",
    "/etc/ethertypes",
];

/// A program of the workspace.
#[derive(Clone)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
}

/// Builds the programs, and these suites of the tests crate. The command is the one that `test` builds with: cargo
/// chooses the features of dependencies for all that one command builds, and another one would build them again.
pub fn build(is_release: bool, suites: &[String]) -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
    cargo.args(is_release.then_some("--release"));
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let shown = step::shown(&cargo);
    let output = cargo.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({})", output.status);
    }
    let built = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| executable(line, suites));
    let programs: Vec<Program> = built.map(|program| stripped(&program)).collect::<Result<_>>()?;
    match suites.iter().find(|suite| programs.iter().all(|program| program.name != **suite)) {
        Some(suite) => bail!("the tests crate has no suite {suite}"),
        None => Ok(programs),
    }
}

/// The program that a line of cargo's output says it built, if it is one for guests: of the userspace or the rig, or one
/// of `suites`. An emulated machine is not measured.
fn executable(line: &[u8], suites: &[String]) -> Option<Program> {
    let message: Value = serde_json::from_slice(line).ok()?;
    let (path, target) = (message["executable"].as_str()?, &message["target"]);
    let name = target["name"].as_str()?;
    let is_wanted = match target["kind"][0].as_str()? {
        // A program is also built as a test of itself.
        "bin" => message["profile"]["test"] == false && !name.starts_with("bench-") && name != "xtask",
        "test" => suites.iter().any(|suite| suite == name),
        _ => false,
    };
    is_wanted.then(|| Program { name: name.to_owned(), path: path.into() })
}

/// A copy without what only debuggers read, which is most of a program. It is kept.
fn stripped(program: &Program) -> Result<Program> {
    let folder = workspace::root().join("target/vm");
    fs::create_dir_all(&folder).context("cannot make target/vm")?;
    let built = program.path.file_name().unwrap_or_default();
    let profile = program.path.ancestors().nth(1).and_then(Path::file_name).unwrap_or_default();
    let path = folder.join(format!("{}-{}", profile.to_string_lossy(), built.to_string_lossy()));
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if time(&path).is_none_or(|copied| Some(copied) <= time(&program.path)) {
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&path).arg(&program.path);
        output(strip)?;
    }
    Ok(Program { path, ..program.clone() })
}

/// Puts our programs and all that they call into `initramfs`.
pub fn pack(programs: &[Program], initramfs: &mut Initramfs) -> Result<()> {
    let mut files = Vec::new();
    for program in programs {
        initramfs.file(&program.path, &Path::new(FOLDER).join(&program.name))?;
        files.push(program.path.clone());
    }
    for name in COMMANDS {
        let Some(path) = workspace::find(name) else {
            bail!("there is no {name} on this machine for the guest")
        };
        initramfs.mirror(&path)?;
        files.push(path);
    }
    for path in EXTRAS.iter().filter_map(|name| workspace::find(name)) {
        initramfs.mirror(&path)?;
        files.push(path);
    }
    for path in DATA.iter().map(Path::new) {
        if path.is_dir() {
            initramfs.mirror_folder(path)?;
            files.extend(super::kernel::files(path)?);
        } else if path.exists() {
            initramfs.mirror(path)?;
        }
    }
    for library in libraries(&files)? {
        initramfs.mirror(&library)?;
    }
    pack_busybox(initramfs)
}

/// The names by which busybox is called, behind those of real programs.
fn pack_busybox(initramfs: &mut Initramfs) -> Result<()> {
    let busybox = workspace::find("busybox").context("there is no busybox on this machine for the guest")?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    initramfs.link(Path::new("/usr/bin/busybox"), &busybox);
    for applet in output(list)?.lines() {
        let is_real =
            COMMANDS.iter().chain(EXTRAS).any(|name| *name == applet && workspace::find(name).is_some());
        if !is_real {
            initramfs.link(&Path::new("/usr/bin").join(applet), Path::new("/usr/bin/busybox"));
        }
    }
    Ok(())
}

/// The shared libraries of the programs and libraries among `files`, as the dynamic linker finds them here.
fn libraries(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.env("LC_ALL", "C").args(files.iter().filter(|path| is_elf(path)));
    // It fails if only one of the programs is static.
    let output = ldd.output().context("cannot run ldd")?;
    needed(&String::from_utf8_lossy(&output.stdout))
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// The paths in what ldd prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn needed(ldd: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in ldd.lines().filter(|line| line.starts_with('\t')).map(str::trim) {
        if line.ends_with("not found") {
            bail!("a library of a program for the guest is not installed: {line}");
        }
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{executable, is_elf, needed};

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let ldd = "/usr/sbin/ip:\n\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
            /bin/busybox:\n\tnot a dynamic executable\n/usr/sbin/tc:\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007e)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(needed(ldd).unwrap(), paths.map(PathBuf::from));
        assert!(needed("/a:\n\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn guests_get_programs_and_the_suites_they_are_to_run() {
        let name = |kind, name, is_test| {
            let line = format!(
                r#"{{"target":{{"name":"{name}","kind":["{kind}"]}},"profile":{{"test":{is_test}}},"executable":"/t/{name}-1"}}"#
            );
            executable(line.as_bytes(), &["network".to_owned()]).map(|program| program.path)
        };
        assert_eq!(name("test", "network", true), Some(PathBuf::from("/t/network-1")));
        assert_eq!(name("bin", "flanneld", false), Some(PathBuf::from("/t/flanneld-1")));
        for (kind, other, is_test) in
            [("test", "fault", true), ("bin", "flanneld", true), ("bin", "xtask", false), ("lib", "a", true)]
        {
            assert_eq!(name(kind, other, is_test), None, "{kind} {other}");
        }
        let library = br#"{"reason":"compiler-artifact","target":{"name":"anyhow"},"executable":null}"#;
        assert!(executable(library, &[]).is_none() && executable(b"", &[]).is_none());
    }

    #[test]
    fn programs_are_told_from_scripts() {
        assert!(is_elf(&std::env::current_exe().unwrap()));
        assert!(!is_elf(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))));
    }
}
