//! External programs: never by a shell, never without a deadline.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::RulesError;

/// How long a program may take. iptables itself waits less for its lock.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program, and what to do without it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    /// The value of `EnableNFTables` with which it is not needed.
    pub(super) other_engine: bool,
}

impl Program {
    /// Runs it with `input` on standard input, and returns what it prints.
    ///
    /// # Errors
    /// It is missing, cannot be started, fails, or takes longer than [`DEADLINE`].
    pub(super) async fn run(self, arguments: &[&str], input: &str) -> Result<String, RulesError> {
        let command = || [&[self.name], arguments].concat().join(" ");
        let mut program = Command::new(self.name);
        // Among the daemon's own variables may be a password.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FLANNELD_") {
                program.env_remove(name);
            }
        }
        let child = program
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| self.not_started(source, command()))?;
        let output = timeout(DEADLINE, talk(child, input))
            .await
            .map_err(|_| RulesError::Deadline { command: command(), deadline: DEADLINE })?
            .map_err(|source| RulesError::Run { command: command(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(RulesError::Failed { command: command(), status: output.status, stderr })
    }

    fn not_started(self, source: io::Error, command: String) -> RulesError {
        match source.kind() {
            io::ErrorKind::NotFound => RulesError::Missing {
                program: self.name,
                package: self.package,
                other_engine: self.other_engine,
            },
            _ => RulesError::Run { command, source },
        }
    }
}

/// Writes and reads at the same time, because either pipe may be full.
async fn talk(mut child: Child, input: &str) -> io::Result<std::process::Output> {
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read to the end says so by its status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    output
}
