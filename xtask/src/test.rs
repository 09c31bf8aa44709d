//! `test`: every test of the workspace, as root, with one line that sums them up.

mod fallback;

use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use self::fallback::Fallback;
use crate::summary::Summary;
use crate::toolchain::Flag;
use crate::{build_ebpf, kernels, privilege, setup, step, workspace};

/// How many suites are shown with the time they took.
const LONGEST: usize = 10;

/// The suite that fallbacks are forced in.
const NETWORK: &str = "network";

/// Runs the tests of the whole workspace, as root
///
/// First does what `setup` and `build-ebpf` do, and builds the programs that the tests start. Builds as you
/// and runs the tests as root, through sudo if need be: they load programs into the kernel and play hosts
/// by network namespaces. Prints the tests' own output, and at the end their number: "N passed, N failed".
/// Fails if no test ran. All tests are followed by the suite network once more, as on a kernel without TCX, and by
/// guests with other kernels, as `kernels` has them: their verifiers, and some tests of the network.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    toolchain: Flag,
    /// Only this suite of the tests crate, for example packet
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Only the suite network, as on a kernel or a host that lacks this; without tests that choose themselves
    #[arg(long, value_enum, value_name = "NAME")]
    fallback: Option<Fallback>,
    /// Passed on to cargo test: `-- NAME` runs tests whose name holds NAME, `-- -- --nocapture` shows output
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.fallback.is_some() && args.suite.as_deref().is_some_and(|suite| suite != NETWORK) {
        bail!("--fallback is for the suite {NETWORK}");
    }
    let started = Instant::now();
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    // The tests start flanneld and flannelctl. Built together with the tests, nothing is built twice: cargo
    // chooses the features of dependencies for all that one command builds.
    let mut build = workspace::cargo();
    build.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
    workspace::run(build)?;

    let mut summary = Summary::default();
    let mut is_success = true;
    for fallback in args.passes() {
        let status = pass(args, fallback, &mut summary)?;
        is_success &= status.success();
    }

    if args.is_everything() {
        kernels::gate(&mut summary)?;
        is_success &= summary.failed == 0;
    }

    println!("\nSuites that took longest:\n{}", summary.longest(LONGEST));
    println!("{:.0} s in all, with building", started.elapsed().as_secs_f32());
    println!("{summary}");
    if summary.failed == 0 && !is_success {
        bail!("cargo test failed though no test did: see what it says above");
    }
    if summary.passed + summary.failed == 0 {
        bail!("no test ran");
    }
    Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    /// The runs of cargo test, by the fallback that each forces.
    fn passes(&self) -> Vec<Option<Fallback>> {
        if self.is_everything() { vec![None, Some(Fallback::Clsact)] } else { vec![self.fallback] }
    }

    const fn is_everything(&self) -> bool {
        self.fallback.is_none() && self.suite.is_none() && self.arguments.is_empty()
    }
}

/// Runs tests once, and shows and sums up what they say.
fn pass(args: &Args, fallback: Option<Fallback>, summary: &mut Summary) -> Result<ExitStatus> {
    let mut test = workspace::cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !privilege::is_root() {
        test.arg("--config").arg(runner(&privilege::words()?));
    }
    let suite = fallback.map(|_| NETWORK).or(args.suite.as_deref());
    if let Some(suite) = suite {
        test.args(["--test", suite]);
    }
    // One pipe: what cargo says of programs comes before what they say.
    let output = step::output(test.args(&args.arguments))?;
    if io::stdout().is_terminal() {
        test.env("CARGO_TERM_COLOR", "always");
    }
    if let Some(fallback) = fallback {
        fallback.force(&mut test, args.arguments.iter().any(|argument| argument == "--"));
    }
    let shown = step::shown(&test);
    let mut child = test.spawn().with_context(|| format!("cannot run {shown}"))?;
    drop(test);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests say")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.read(&line);
    }
    child.wait().with_context(|| format!("cannot wait for {shown}"))
}

/// The cargo setting by which test programs, and only they, run as root.
fn runner(words: &[String]) -> String {
    let words: Vec<String> =
        words.iter().map(|word| format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))).collect();
    format!("target.'cfg(unix)'.runner=[{}]", words.join(","))
}

#[cfg(test)]
mod tests {
    use super::runner;

    #[test]
    fn the_runner_is_a_list_in_toml() {
        let words = ["sudo".to_owned(), r#"PATH=/a "b"\c"#.to_owned()];
        let table: toml::Table = runner(&words).parse().unwrap();
        let runner = table["target"]["cfg(unix)"]["runner"].as_array().unwrap();
        let read: Vec<_> = runner.iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(read, words);
    }
}
