//! Where the programs under test are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Names a directory in which to look instead.
pub const DIRECTORY_VARIABLE: &str = "FLANNEL_BIN_DIR";

/// The program of that name, built beside this one.
///
/// # Errors
/// It is not there.
pub fn find(name: &str) -> Result<PathBuf> {
    let directories = match env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) => vec![PathBuf::from(directory)],
        None => {
            let this = env::current_exe().context("cannot find out where this program is")?;
            // Tests are in `deps`, a directory below the programs.
            this.ancestors().skip(1).take(2).map(PathBuf::from).collect()
        }
    };
    let candidates = directories.iter().map(|directory| directory.join(name));
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "no program {name} in {directories:?}: build it with `cargo build --bins`, or name its directory in {DIRECTORY_VARIABLE}"
        ),
    }
}
