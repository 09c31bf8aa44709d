//! `verifier`: what the kernel makes of every program.

use std::process::ExitCode;

use anyhow::Result;

use crate::toolchain::Flag;
use crate::{build_ebpf, privilege, setup, workspace};

/// Loads every kernel program and shows what the kernel's verifier made of it
///
/// First does what `setup` and `build-ebpf` do. Loads each program as root with all capabilities, with
/// CAP_BPF and CAP_NET_ADMIN alone, and with these as `flanneld --datapath-log=info` does, and prints a table: instructions verified, bytes after
/// translation, bytes of machine code. Attaches nothing. Fails if a program is refused.
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
    let mut verifier = privilege::command(workspace::built("debug", "verifier")?)?;
    verifier.arg(workspace::object());
    Err(privilege::become_command(verifier))
}
