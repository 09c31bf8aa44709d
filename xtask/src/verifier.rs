//! `verifier`: whether the kernel accepts every program.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::toolchain::Flag;
use crate::{build_ebpf, privilege, setup, workspace};

/// Loads every kernel program and shows what the kernel's verifier made of it
///
/// First does what `setup` and `build-ebpf` do. Loads each program that is for this kernel, as root with all
/// capabilities, with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and without the last one; each also as `flanneld
/// --datapath-log=info` does. Prints a table: instructions verified, bytes after translation, bytes of machine code.
/// Attaches nothing. Fails if a program is refused that this kernel is to take: without CAP_PERFMON that is one from 6.5 on.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "-p", "flannel-tests", "--bin", "verifier"]);
    workspace::run(build)?;
    let mut verifier = Command::new(workspace::built("debug", "verifier")?);
    verifier.arg(workspace::object());
    Err(privilege::become_command(privilege::as_root(verifier)?))
}
