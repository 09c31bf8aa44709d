//! `test`: every test of the workspace, as root, with what they took and one line that sums them up.

mod company;
mod examples;
mod fallback;
mod job;
mod pool;
mod program;
mod selection;

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use self::company::Company;
use self::fallback::Fallback;
use self::job::{Job, Outcome, Verdict};
use self::program::Program;
use self::selection::Selection;
use crate::summary::Summary;
use crate::toolchain::Flag;
use crate::{build_ebpf, kernels, kubernetes, moto, setup};

/// How many of the slowest tests are shown.
const SLOWEST: usize = 10;

/// The suite that fallbacks are forced in.
const NETWORK: &str = "network";

/// Runs the tests of the whole workspace, as root
///
/// First does what `setup` and `build-ebpf` do, and builds the programs that the tests start. Builds as you
/// and runs the tests as root, through sudo if need be: they load programs into the kernel and play hosts
/// by network namespaces. Each test is a process of its own. They run side by side, and behind them those that measure,
/// one by one. Prints what failed tests print, and at the end what took longest and their number: "N passed, N failed".
/// Fails if no test ran. With all tests, the suite network runs once more, as on a kernel without TCX, and guests
/// with other kernels, as `kernels` has them: their verifiers, and some tests of the network. The suites kubernetes and
/// cluster need what `setup --kubernetes` builds, and are left out with a line at the end where that is not there. The
/// suite conformance runs only when it is named.
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
    /// As for Rust's test programs: `-- NAME` runs tests whose name holds NAME, `-- --nocapture` shows output;
    /// `--skip NAME`, `--exact`, `--test-threads N`
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.fallback.is_some() && args.suite.as_deref().is_some_and(|suite| suite != NETWORK) {
        bail!("--fallback is for the suite {NETWORK}");
    }
    let selection = Selection::parse(&args.arguments).unwrap_or_else(|error| error.exit());
    let started = Instant::now();
    build_ebpf::build(&setup::ensure(args.toolchain)?)?;
    if let Some(suite) = &args.suite {
        kubernetes::ensure_for(suite)?;
    }
    if args.suite.as_deref() == Some(moto::SUITE) {
        moto::ensure()?;
    }
    let jobs = args.jobs(&selection)?;
    println!("{:.0} s until all was built", started.elapsed().as_secs_f32());

    let mut summary = Summary::default();
    run_jobs(&jobs, &selection, &mut summary)?;
    if args.has_unit_tests() {
        examples::run(&selection, &mut summary)?;
    }
    if args.is_everything() {
        kernels::gate(&mut summary)?;
    }

    for suite in args.left_out() {
        println!(
            "\nThe suite {suite} was left out: it needs Kubernetes, which `cargo xtask setup --kubernetes` builds once"
        );
    }
    println!("\nTests that took longest:\n{}", summary.slowest(SLOWEST));
    println!("Suites, by the time of their tests:\n{}", summary.suites());
    println!("{:.0} s in all, with building", started.elapsed().as_secs_f32());
    println!("{summary}");
    if summary.passed + summary.failed == 0 {
        bail!("no test ran");
    }
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    /// Every test that is asked for.
    fn jobs(&self, selection: &Selection) -> Result<Vec<Job>> {
        let programs: Vec<Arc<Program>> = program::build()?.into_iter().map(Arc::new).collect();
        if let Some(suite) = &self.suite
            && !programs.iter().any(|program| program.is_suite && program.name == *suite)
        {
            bail!("the tests crate has no suite {suite}");
        }
        let mut jobs = Vec::new();
        for fallback in self.passes() {
            for program in programs.iter().filter(|program| self.wants(program, fallback)) {
                jobs.extend(jobs_of(program, fallback, selection)?);
            }
        }
        if self.is_everything() {
            check_names(&jobs)?;
        }
        Ok(jobs)
    }

    /// The passes over the tests, by the fallback that each forces.
    fn passes(&self) -> Vec<Option<Fallback>> {
        if self.is_everything() { vec![None, Some(Fallback::Clsact)] } else { vec![self.fallback] }
    }

    fn wants(&self, program: &Program, fallback: Option<Fallback>) -> bool {
        match fallback.map(|_| NETWORK).or(self.suite.as_deref()) {
            Some(suite) => program.is_suite && program.name == suite,
            None if !program.is_suite => true,
            // It takes a large package of others', and what it checks does not change by itself.
            None if program.name == moto::SUITE => false,
            None if program.name == kubernetes::CONFORMANCE => false,
            None => kubernetes::is_there_for(&program.name),
        }
    }

    /// The suites that would have run and cannot.
    fn left_out(&self) -> Vec<&'static str> {
        let suites = [kubernetes::SUITE, kubernetes::CLUSTER].into_iter();
        suites.filter(|suite| self.has_unit_tests() && !kubernetes::is_there_for(suite)).collect()
    }

    const fn has_unit_tests(&self) -> bool {
        self.fallback.is_none() && self.suite.is_none()
    }

    const fn is_everything(&self) -> bool {
        self.has_unit_tests() && self.arguments.is_empty()
    }
}

fn jobs_of(program: &Arc<Program>, fallback: Option<Fallback>, selection: &Selection) -> Result<Vec<Job>> {
    let left_out = fallback.map_or(&[][..], Fallback::left_out);
    let names = program.tests(&selection.without(left_out))?;
    Ok(names.into_iter().map(|name| Job { program: program.clone(), name, fallback }).collect())
}

/// Fails if tests are named here that there are not: a test that was given another name would run beside others, or
/// where it was left out.
fn check_names(jobs: &[Job]) -> Result<()> {
    let network: Vec<&str> =
        jobs.iter().filter(|job| job.program.name == NETWORK).map(|job| job.name.as_str()).collect();
    let left_out = Fallback::unknown(&network).into_iter().map(|part| format!("{NETWORK} {part}"));
    let unknown: Vec<String> = company::unknown(jobs).into_iter().chain(left_out).collect();
    if !unknown.is_empty() {
        bail!("xtask/src/test names tests that there are not: {}", unknown.join(", "));
    }
    Ok(())
}

/// Runs all of these, and shows and sums up the results.
fn run_jobs(jobs: &[Job], selection: &Selection, summary: &mut Summary) -> Result<()> {
    for company in Company::ALL {
        let jobs: Vec<Job> = jobs.iter().filter(|job| Company::of(job) == company).cloned().collect();
        let at_once = if company == Company::None { NonZeroUsize::MIN } else { selection.at_once()? };
        if !jobs.is_empty() {
            let started = Instant::now();
            println!("\n{} tests, {at_once} at a time", jobs.len());
            pool::run(&jobs, at_once, |job, outcome| ended(job, &outcome, selection, summary))?;
            println!("{:.0} s", started.elapsed().as_secs_f32());
        }
    }
    Ok(())
}

fn ended(job: &Job, outcome: &Outcome, selection: &Selection, summary: &mut Summary) -> Result<()> {
    let Outcome { verdict, time, output } = outcome;
    let (suite, name) = (job.suite(), &job.name);
    let shown = if selection.nocapture || *verdict == Verdict::Failed { output } else { "" };
    writeln!(io::stdout(), "{shown}test {suite} {name} ... {} ({:.1} s)", verdict.word(), time.as_secs_f32())
        .context("cannot show what tests say")?;
    summary.time(&suite, name, *time);
    if *verdict != Verdict::Ignored {
        summary.count(&format!("{suite} {name}"), *verdict == Verdict::Passed);
    }
    Ok(())
}
