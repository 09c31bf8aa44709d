cargo xtask build-ebpf
cargo build --locked --package flanneld --package flannelctl
target/debug/flanneld --version
target/debug/flannelctl --version
