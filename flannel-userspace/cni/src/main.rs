//! The CNI plugin `flannel`. What it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    flannel_cni::main()
}
