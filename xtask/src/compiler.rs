//! What a compiler says of itself.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::step;

/// The oldest Rust that this workspace accepts, as its manifest says.
pub const MINIMUM: (u32, u32) = match env!("CARGO_PKG_RUST_VERSION").as_bytes() {
    [b'1', b'.', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] => {
        (1, (*tens - b'0') as u32 * 10 + (*ones - b'0') as u32)
    }
    _ => (1, u32::MAX),
};

/// The compiler that Debian packages to build browsers.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Its cargo.
pub const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The sources of its core library.
pub const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";

/// Where Debian puts one major version of LLVM.
pub fn llvm_prefix(major: u32) -> String {
    format!("/usr/lib/llvm-{major}")
}

#[derive(Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Major and minor version of Rust.
    pub release: (u32, u32),
    /// Major version of the LLVM in it, which decides what linker can read its code.
    pub llvm: u32,
}

impl Compiler {
    /// Asks a rustc.
    pub fn of(mut rustc: Command) -> Result<Self> {
        rustc.arg("-vV");
        let shown = step::shown(&rustc);
        let output = rustc.output().with_context(|| format!("cannot run {shown}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(compiler) = parse(&text) else {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{shown} shows no version: {}{}", text.trim(), error.trim());
        };
        Ok(compiler)
    }
}

fn parse(text: &str) -> Option<Compiler> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let release = version(field("release: ")?)?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(Compiler { release, llvm })
}

/// The version, the second word of `program -V`: "rustc 1.96.0 (…)".
pub fn version_of(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("-V").output().ok()?;
    version(String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?)
}

/// Major and minor of "1.96.0-nightly" or "1.96.0+dfsg1-1".
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Compiler, MINIMUM, parse, version, version_of};

    #[test]
    fn release_and_llvm_are_read() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse(text), Some(Compiler { release: (1, 97), llvm: 22 }));
        assert_eq!(parse("error: toolchain 'nightly' is not installed"), None);
    }

    #[test]
    fn versions_of_packages_and_programs_are_read() {
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(version("1.100.0"), Some((1, 100)));
        assert_eq!(version("none"), None);
    }

    #[test]
    fn the_manifest_names_the_oldest_rust() {
        assert_eq!(version(env!("CARGO_PKG_RUST_VERSION")), Some(MINIMUM));
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version_of("/no/such/rustc"), None);
    }
}
