//! The programs that hold the tests, as cargo has built them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::selection::Selection;
use crate::{step, workspace};

/// The package of the rig and the suites.
const RIG: &str = "flannel-tests";

/// A program with tests: a suite of the rig, or a crate's unit tests.
#[derive(Debug)]
pub struct Program {
    /// The suite's name, or the crate's.
    pub name: String,
    pub path: PathBuf,
    /// The folder of its package, in which cargo runs tests.
    pub folder: PathBuf,
    /// Whether it is a suite of the rig.
    pub is_suite: bool,
}

/// Builds every program with tests, and those that the tests start. They are built together: cargo chooses the features
/// of dependencies for all that one command builds, and another one would build them again.
pub fn build() -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let shown = step::shown(&cargo);
    let output = cargo.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({})", output.status);
    }
    let mut programs: Vec<Program> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(Program::parse).collect();
    // What takes long begins first: the short ones fill the gaps at the end.
    programs.sort_by(|one, other| (!one.is_suite, &one.name).cmp(&(!other.is_suite, &other.name)));
    Ok(programs)
}

impl Program {
    /// The program that a line of cargo's messages says it built, if that holds tests.
    fn parse(line: &[u8]) -> Option<Self> {
        let message: Value = serde_json::from_slice(line).ok()?;
        let path = message["executable"].as_str()?;
        let (target, manifest) = (&message["target"], Path::new(message["manifest_path"].as_str()?));
        let is_test = message["profile"]["test"] == true;
        let folder = manifest.parent()?.to_owned();
        is_test.then_some(())?;
        Some(Self {
            name: target["name"].as_str()?.to_owned(),
            path: path.into(),
            is_suite: target["kind"][0] == "test" && package(&message) == Some(RIG),
            folder,
        })
    }

    /// The names of its tests that are selected, in the order in which it has them.
    pub fn tests(&self, selection: &Selection) -> Result<Vec<String>> {
        let mut list = Command::new(&self.path);
        list.current_dir(&self.folder).args(["--list", "--format", "terse"]).args(selection.filters());
        let output = list.output().with_context(|| format!("cannot run {}", self.path.display()))?;
        if !output.status.success() {
            bail!("{} lists no tests: {}", self.path.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(listed(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The package's name: "path+file:///work/tests#flannel-tests@0.1.0", or without it where the folder has the same.
fn package(message: &Value) -> Option<&str> {
    let (_, package) = message["package_id"].as_str()?.rsplit_once('#')?;
    Some(package.split_once('@').map_or(package, |(name, _)| name))
}

/// The tests in "name: test" lines.
fn listed(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Program, listed};

    #[test]
    fn suites_are_told_from_unit_tests_and_from_plain_programs() {
        let line = |kind: &str, is_test: bool| {
            format!(
                r#"{{"executable":"/t/a-1","manifest_path":"/w/tests/Cargo.toml","profile":{{"test":{is_test}}},
                "package_id":"path+file:///w/tests#flannel-tests@0.1.0",
                "target":{{"name":"network","kind":["{kind}"]}}}}"#
            )
            .replace('\n', "")
        };
        let suite = Program::parse(line("test", true).as_bytes()).unwrap();
        assert_eq!((suite.name.as_str(), suite.is_suite), ("network", true));
        assert_eq!(suite.folder.to_str(), Some("/w/tests"));
        assert!(!Program::parse(line("lib", true).as_bytes()).unwrap().is_suite);
        assert!(Program::parse(line("bin", false).as_bytes()).is_none());
        assert!(Program::parse(br#"{"reason":"build-finished","success":true}"#).is_none());
    }

    #[test]
    fn tests_are_listed_by_their_names() {
        assert_eq!(listed("a::b: test\nc: bench\n\na::case_1: test\n"), ["a::b", "a::case_1"]);
    }
}
