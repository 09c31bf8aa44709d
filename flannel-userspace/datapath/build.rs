//! Embeds the eBPF programs, which `cargo xtask build-ebpf` has built.

use std::env;
use std::path::Path;

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let object = Path::new(&manifest).join("../../target/ebpf/flannel-datapath.o");
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        println!("cargo::rustc-env=FLANNEL_DATAPATH_OBJECT={}", object.display());
    } else {
        println!("cargo::error=the eBPF programs are not built: run cargo xtask build-ebpf");
    }
}
