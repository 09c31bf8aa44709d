//! `demo`: the whole of flannel-ebpf at work on this machine.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::toolchain::Flag;
use crate::{build_ebpf, privilege, setup, workspace};

/// The profile of its programs: optimised as far as measuring takes, and built soon.
const PROFILE: &str = "demo";
/// The program.
const DEMO: &str = "demo";

/// Shows a network of hosts and pods on this machine, with a real etcd and real daemons
///
/// First does what `setup` and `build-ebpf` do, and builds the programs. Then runs as root, through
/// sudo if need be, until it is done or interrupted with Ctrl-C; either way it removes what it made. Ends
/// with the demo's own exit code.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
    /// Passed on to the demo; -- --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    let mut build = workspace::cargo();
    build.args([
        "build",
        "--locked",
        "--profile",
        PROFILE,
        "-p",
        "flanneld",
        "-p",
        "flannelctl",
        "-p",
        "flannel-tests",
    ]);
    // All that it starts: another program is another link.
    for program in [DEMO, "flanneld", "flannelctl"] {
        build.args(["--bin", program]);
    }
    workspace::run(build)?;
    let mut demo = Command::new(workspace::built(PROFILE, DEMO)?);
    demo.args(&args.arguments);
    // Ctrl-C then reaches the demo alone, and nothing ends before it has cleaned up.
    Err(privilege::become_command(privilege::as_root(demo)?))
}
