//! `peers` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flannel_fuzz::run("peers", input));
