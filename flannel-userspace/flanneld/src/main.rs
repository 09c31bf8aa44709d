//! `flanneld`: leases a subnet for this host and keeps the datapath to the other hosts.

use std::process::ExitCode;

use flannel_model::error::Chain;
use flanneld::cli::{self, Options};
use flanneld::daemon;
use tokio::runtime::Builder;
use tracing::Level;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(options) => run(options),
        Err(refusal) => {
            refusal.print();
            refusal.exit_code()
        }
    }
}

fn run(options: Options) -> ExitCode {
    // What is found is printed, not logged.
    let level = if options.check { Level::WARN } else { options.log_level };
    let log_level = daemon::start_logging(level, options.log_format);
    for ignored in cli::ignored_variables() {
        tracing::warn!("{ignored}");
    }
    // One thread is enough: the kernel forwards the packets.
    let runtime =
        Builder::new_current_thread().enable_all().on_thread_start(flannel_privileges::enter_thread).build();
    let outcome = match runtime {
        Ok(runtime) if options.check => {
            let is_good = runtime.block_on(daemon::check(&options));
            return if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Ok(runtime) => runtime.block_on(daemon::run(options, log_level)),
        Err(error) => Err(daemon::DaemonError::Signals(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Chain(&error));
            ExitCode::FAILURE
        }
    }
}
