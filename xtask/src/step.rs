//! A long command: one live line while it runs, the end of its output if it fails.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, PipeReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many lines of output an error repeats.
const TAIL: usize = 20;
/// How often a log, which has no live line, says that the command still runs.
const PULSE: Duration = Duration::from_secs(30);

/// Runs `command` and hides its output behind one live line. `label` says what it does: "Installing …".
///
/// # Errors
/// Carry the command and the last lines it wrote.
pub fn run(label: &str, mut command: Command) -> Result<()> {
    let shown = shown(&command);
    let output = output(&mut command)?;
    command.stdin(Stdio::null());
    let mut line = Line::start(label);
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    drop(command);
    let mut tail = VecDeque::with_capacity(TAIL);
    for output in BufReader::new(output).split(b'\n') {
        let output = output.with_context(|| format!("cannot read the output of {shown}"))?;
        let output = String::from_utf8_lossy(&output).trim_end().to_owned();
        line.say(&output);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(output);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    line.end(status.success());
    if !status.success() {
        let tail: String = tail.iter().map(|line| format!("\n    {line}")).collect();
        bail!("{shown} failed ({status}); it said:{tail}");
    }
    Ok(())
}

/// Has a command write both its streams, in their order, into what is returned. That ends when the command has ended and
/// `command`, which holds two writers, is dropped.
pub fn output(command: &mut Command) -> Result<PipeReader> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdout(writer.try_clone().context("cannot make a pipe")?).stderr(writer);
    Ok(reader)
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = command.get_program();
    // Cargo shows its whole path, which says nothing to a person who typed `cargo`.
    let program =
        if env::var_os("CARGO").is_some_and(|cargo| cargo == program) { "cargo".as_ref() } else { program };
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

/// A word as a shell takes it for one.
pub fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=+.,:/@%^~".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What is seen of the running command: a spinner on a terminal, a few lines in a log.
struct Line<'a> {
    label: &'a str,
    started: Instant,
    pulse: Instant,
    spinner: Option<ProgressBar>,
}

impl<'a> Line<'a> {
    fn start(label: &'a str) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_prefix(label.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        if spinner.is_none() {
            eprintln!("{label} …");
        }
        let now = Instant::now();
        Self { label, started: now, pulse: now, spinner }
    }

    fn say(&mut self, output: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(output.trim_start().to_owned());
        } else if self.pulse.elapsed() > PULSE {
            self.pulse = Instant::now();
            eprintln!("  after {} s: {output}", self.started.elapsed().as_secs());
        }
    }

    fn end(self, success: bool) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let outcome = if success { "done" } else { "failed" };
        eprintln!("{}: {outcome} in {:.1} s", self.label, self.started.elapsed().as_secs_f32());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{run, shown};

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_failure_carries_the_command_and_both_outputs() {
        let error = run("Trying", shell("echo one; echo two >&2; exit 3")).unwrap_err().to_string();
        assert!(
            error.starts_with("sh -c 'echo one; echo two >&2; exit 3' failed (exit status: 3)"),
            "{error}"
        );
        assert!(error.ends_with("it said:\n    one\n    two"), "{error}");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let error = run("Counting", shell("seq 1 100; false")).unwrap_err().to_string();
        assert!(!error.contains("\n    80\n") && error.contains("\n    81\n"), "{error}");
        assert!(error.ends_with("\n    100"), "{error}");
    }

    #[test]
    fn output_that_is_no_text_and_large_does_not_block() {
        run("Writing", shell("head -c 300000 /dev/urandom")).unwrap();
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        let mut command = Command::new("env");
        command.args(["A=b", "two words", "it's", ""]);
        assert_eq!(shown(&command), r"env A=b 'two words' 'it'\''s' ''");
    }
}
