//! Examples in documentation, which only cargo can build.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::selection::Selection;
use crate::summary::Summary;
use crate::{privilege, step, workspace};

/// What stands behind ``` where the block is no example.
const TEXT: &str = "text";

/// Runs those that are selected, if there are any: cargo builds the libraries again for them.
pub fn run(selection: &Selection, summary: &mut Summary) -> Result<()> {
    if !are_there_any()? {
        println!("\nThere are no examples in documentation.");
        return Ok(());
    }
    let mut test = workspace::cargo();
    test.args(["test", "--workspace", "--locked", "--no-fail-fast", "--doc"]);
    if !privilege::is_root() {
        test.arg("--config").arg(runner(&privilege::sudo()?));
    }
    test.arg("--").args(selection.filters());
    // One pipe: what cargo says of programs comes before what they say.
    let output = step::output(&mut test)?;
    let (shown, started) = (step::shown(&test), Instant::now());
    let mut child = test.spawn().with_context(|| format!("cannot run {shown}"))?;
    drop(test);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the examples say")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.read(&line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    summary.time_suite("examples in documentation", started.elapsed());
    if !status.success() && summary.failed == 0 {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

fn are_there_any() -> Result<bool> {
    let metadata = workspace::metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    for library in packages.iter().filter_map(library) {
        if is_with_example(library.parent().context("a library is in no folder")?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The main file of a package's library.
fn library(package: &Value) -> Option<&Path> {
    let mut targets = package["targets"].as_array()?.iter();
    let library = targets.find(|target| target["doctest"] == true)?;
    library["src_path"].as_str().map(Path::new)
}

/// Whether a source in a folder has an example.
fn is_with_example(folder: &Path) -> Result<bool> {
    let unread = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(unread)? {
        let path = entry.with_context(unread)?.path();
        let is_so = if path.is_dir() {
            is_with_example(&path)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && has_example(&fs::read_to_string(&path).with_context(unread)?)
        };
        if is_so {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a block in a source's documentation is not said to be text.
fn has_example(source: &str) -> bool {
    let documentation = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
    });
    let fences = documentation.filter_map(|line| line.trim_start().strip_prefix("```"));
    // Every other one ends a block.
    fences.step_by(2).any(|tag| tag.trim() != TEXT)
}

/// The cargo setting by which test programs, and only they, run as root.
fn runner(words: &[OsString]) -> String {
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("\"{}\"", word.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"")))
        .collect();
    format!("target.'cfg(unix)'.runner=[{}]", words.join(","))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{has_example, runner};

    #[test]
    fn an_example_is_a_block_that_is_not_text() {
        assert!(!has_example("//! ```text\n//! a picture\n//! ```\nlet x = \"```\";\n"));
        assert!(has_example("    /// Says one.\n    /// ```\n    /// assert_eq!(one(), 1);\n    /// ```\n"));
        assert!(has_example("/// ```text\n/// ```\n/// ```no_run\n/// ```\n"));
    }

    #[test]
    fn the_runner_is_a_list_in_toml() {
        let words = ["sudo", r#"PATH=/a "b"\c"#].map(OsString::from);
        let table: toml::Table = runner(&words).parse().unwrap();
        let runner = table["target"]["cfg(unix)"]["runner"].as_array().unwrap();
        let read: Vec<_> = runner.iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(read, words);
    }
}
