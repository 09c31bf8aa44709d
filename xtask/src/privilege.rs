//! Running as root: installing packages, loading kernel programs and making namespaces need it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Error, Result, bail};

use crate::{step, workspace};

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether commands can be run as root.
pub fn is_available() -> bool {
    is_root() || workspace::find("sudo").is_some()
}

/// The words before a command that run it as root, with this environment and the system's folders on PATH.
pub fn words() -> Result<Vec<String>> {
    let mut words = Vec::new();
    if !is_available() {
        bail!("this needs root, and there is no sudo: run it as root");
    }
    if !is_root() {
        words.extend(["sudo".to_owned(), "-E".to_owned()]);
    }
    // sudo puts a PATH of its own, in which rustup's programs are not found.
    words.extend(["env".to_owned(), format!("PATH={}", workspace::search_path())]);
    Ok(words)
}

/// `program` run as root.
pub fn command(program: impl AsRef<Path>) -> Result<Command> {
    let mut words = words()?.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg(program.as_ref());
    Ok(command)
}

/// Asks for sudo's password now, so that no prompt appears in the middle of a live line.
pub fn authenticate() -> Result<()> {
    if !is_root() {
        let status = Command::new("sudo").arg("-v").status().context("cannot run sudo")?;
        if !status.success() {
            bail!("sudo refused ({status})");
        }
    }
    Ok(())
}

/// Becomes `command`: its signals are its own, and so is its exit code. Returns only if that fails.
pub fn become_command(mut command: Command) -> Error {
    let error = command.exec();
    Error::new(error).context(format!("cannot run {}", step::shown(&command)))
}

#[cfg(test)]
mod tests {
    use super::{command, is_root, words};

    #[test]
    fn root_needs_no_sudo_and_others_do() {
        match words() {
            Ok(words) => assert_eq!(words.first().is_some_and(|word| word == "sudo"), !is_root()),
            Err(error) => assert!(!is_root() && error.to_string().contains("no sudo"), "{error:#}"),
        }
    }

    #[test]
    fn a_command_as_root_finds_system_programs() {
        let Ok(mut env) = command("env") else { return assert!(!is_root()) };
        if is_root() {
            let output = env.output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("/usr/sbin"));
        }
    }
}
