//! Running as root: installing packages, loading kernel programs and making namespaces need it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
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

/// `command` run as root: with the variables it was given, the system's folders on PATH, and of this process's variables
/// those that such a command may need.
pub fn as_root(mut command: Command) -> Result<Command> {
    if is_root() {
        command.env("PATH", workspace::search_path());
        return Ok(command);
    }
    let words = sudo()?;
    let mut root = Command::new(&words[0]);
    root.args(&words[1..]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            root.arg(assignment(name, value));
        }
    }
    root.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        root.current_dir(folder);
    }
    Ok(root)
}

/// The words before a command by which this process, which is not root, runs it as root. The variables are words too:
/// sudo keeps few by itself, and many a sudoers file allows no `-E`.
pub fn sudo() -> Result<Vec<OsString>> {
    if !is_available() {
        bail!("this needs root, and there is no sudo: run it as root");
    }
    let mut words: Vec<OsString> = ["sudo", "env"].map(OsString::from).into();
    // sudo puts a PATH of its own, in which rustup's programs are not found.
    words.push(assignment("PATH".as_ref(), workspace::search_path().as_ref()));
    let kept = env::vars_os().filter(|(name, _)| is_kept(&name.to_string_lossy()));
    words.extend(kept.map(|(name, value)| assignment(&name, &value)));
    Ok(words)
}

fn assignment(name: &OsStr, value: &OsStr) -> OsString {
    [name, "=".as_ref(), value].into_iter().collect()
}

/// Whether a command that runs as root has a variable of this process: those of the tests and of this project's programs,
/// of colours, of temporary files, and of the way to the network.
fn is_kept(variable: &str) -> bool {
    const PREFIXES: [&str; 3] = ["FLANNEL", "PROPTEST_", "RUST_"];
    const NAMES: [&str; 7] =
        ["CLICOLOR", "NO_COLOR", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
        || NAMES.iter().any(|name| variable.eq_ignore_ascii_case(name))
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
    use std::process::Command;

    use super::{as_root, is_kept, is_root, sudo};

    #[test]
    fn sudo_is_asked_for_no_environment_but_is_told_one() {
        match sudo() {
            Ok(words) => {
                assert!(words.iter().all(|word| word != "-E"), "{words:?}");
                assert!(words.iter().any(|word| word.to_string_lossy().starts_with("PATH=")), "{words:?}");
            }
            Err(error) => assert!(!is_root() && error.to_string().contains("no sudo"), "{error:#}"),
        }
    }

    #[test]
    fn a_command_as_root_has_what_it_was_given_and_finds_system_programs() {
        let mut command = Command::new("env");
        command.env("GIVEN", "a b").current_dir("/");
        let Ok(mut command) = as_root(command) else { return assert!(!is_root()) };
        assert_eq!(command.get_current_dir().unwrap(), "/");
        if is_root() {
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            assert!(output.contains("/usr/sbin") && output.contains("GIVEN=a b"), "{output}");
        } else {
            assert!(command.get_args().any(|word| word == "GIVEN=a b"), "{command:?}");
        }
    }

    #[test]
    fn of_the_environment_only_what_is_needed_is_kept() {
        for name in ["FLANNEL_TEST_PATIENCE", "RUST_BACKTRACE", "https_proxy", "NO_PROXY"] {
            assert!(is_kept(name), "{name}");
        }
        for name in ["HOME", "LD_PRELOAD", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "PATH", "BASH_ENV"] {
            assert!(!is_kept(name), "{name}");
        }
    }
}
