//! Runs a program to which the kernel refuses bpf(), by a seccomp filter: `without-bpf ERRNO PROGRAM [ARGUMENT …]`.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::libc::SYS_bpf;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let errno = arguments.next().context("which error?")?;
    let errno = errno.to_str().and_then(|errno| errno.parse().ok()).context("the error is no number")?;
    let program = arguments.next().context("which program?")?;
    refuse(errno)?;
    Err(Command::new(&program).args(arguments).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Has the kernel answer bpf() with `errno` from now on, in this process and those it becomes.
fn refuse(errno: u32) -> Result<()> {
    let rules = [(SYS_bpf, Vec::new())].into_iter().collect();
    let architecture = TargetArch::try_from(env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}
