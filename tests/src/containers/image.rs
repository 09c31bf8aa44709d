//! An image without a distribution: two programs of this machine, and the libraries that they load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::command::output;

/// What is in it, in `/bin`: a shell's small commands in one static program, and a measurement of throughput.
const PROGRAMS: [&str; 2] = ["busybox", "iperf3"];

/// Makes the archive that `import` takes, below `directory`.
pub(super) fn archive(directory: &Path) -> Result<PathBuf> {
    let (root, archive) = (directory.join("image"), directory.join("image.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    for folder in ["bin", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for program in PROGRAMS {
        let path = output(Command::new("sh").args(["-c", "command -v \"$0\"", program]))
            .with_context(|| format!("there is no {program}: `cargo xtask setup` installs it"))?;
        let path = PathBuf::from(path.trim());
        fs::copy(&path, root.join("bin").join(program))?;
        for library in libraries(&path) {
            let place = root.join(library.strip_prefix("/")?);
            fs::create_dir_all(place.parent().context("a library has a folder")?)?;
            fs::copy(&library, place)?;
        }
    }
    output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

/// The libraries of a program, its loader included; none of a static one, of which `ldd` says so and fails.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = output(Command::new("ldd").arg(program)).unwrap_or_default();
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
