//! The project's own commands: `cargo xtask --help` lists them.

mod bare_root;
mod bench;
mod build_ebpf;
mod cards;
mod compiler;
mod demo;
mod install;
mod kernels;
mod kubernetes;
mod lint;
mod moto;
mod privilege;
mod setup;
mod simulate;
mod step;
mod summary;
mod test;
mod toolchain;
mod verifier;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, shows, tests and checks flannel-ebpf.
///
/// Every verb first does what it needs: `demo` on a fresh machine installs the packages, builds the kernel
/// programs and the daemon, and runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Demo(demo::Args),
    Test(test::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    Simulate(simulate::Args),
    Verifier(verifier::Args),
    Kernels(kernels::Args),
    Vm(Box<vm::Args>),
    Cards(cards::Args),
    BareRoot(bare_root::Args),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Simulate(args) => simulate::run(&args),
        Verb::Verifier(args) => verifier::run(&args),
        Verb::Kernels(args) => kernels::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Cards(args) => cards::run(&args),
        Verb::BareRoot(args) => bare_root::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Xtask::command().debug_assert();
    }
}
