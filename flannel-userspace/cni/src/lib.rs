//! The CNI plugin `flannel`: a container runtime runs it once for each change of a pod's interface.
//!
//! It makes no interface itself. From the network's configuration, which the runtime gives it, and the subnet file, which
//! flanneld writes, it makes the configuration of another plugin, the delegate (`bridge`, unless another one is named),
//! and runs that one. What it gave to the delegate is kept in a file until the pod is gone, because the subnet file may be
//! another by then.
//!
//! The contract is that of <https://www.cni.dev/docs/spec/>, versions 0.1.0 to 1.1.0, and where that leaves room, stock
//! flannel's plugin of the same name. It starts within milliseconds: there is no runtime, no logger and no thread.

mod attachments;
mod commands;
mod delegate_conf;
mod error;
mod json;
mod net_conf;
mod note;
mod plugin;
mod prev_result;
mod readiness;
mod request;
mod saved;
mod subnet_env;
mod version;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use self::error::CniError;
use self::note::note;
use self::request::{Call, Request};

/// Does what the environment and the standard input ask for, and says on the standard output what came of it.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => print(&result),
        Err(error) => {
            // The runtime may have closed its end; the exit code remains.
            let _ = print(&error.to_json());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Option<Value>, CniError> {
    match Call::read(|name| env::var_os(name))? {
        Call::Nothing => {
            introduce();
            Ok(None)
        }
        Call::Version => Ok(Some(version::supported())),
        Call::Command(request) => carry_out(&request),
    }
}

fn carry_out(request: &Request) -> Result<Option<Value>, CniError> {
    let conf = net_conf::read(&request::stdin()?)?;
    request.check(&conf)?;
    commands::carry_out(request, &conf)
}

/// What a person sees who starts the program by hand.
fn introduce() {
    note(format_args!("CNI plugin flannel of flannel-ebpf {}", env!("CARGO_PKG_VERSION")));
    note(format_args!("CNI protocol versions supported: {}", version::SUPPORTED.join(", ")));
}

fn print(value: &Value) -> ExitCode {
    match writeln!(io::stdout(), "{value:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("flannel: cannot write to the standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
