//! Why the kernel refuses a program, for people.

use std::error::Error;
use std::fmt;
use std::io;

use aya::programs::ProgramError;
use flannel_model::error::Chain;
use nix::errno::Errno;

/// The verifier's last lines say why; those before say how it got there.
const LINES: usize = 3;
/// The state of all registers can be on one line.
const LONGEST: usize = 200;
/// What the verifier adds about its own work.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
/// What it says where the kernel lacks something: no capability helps.
const UNKNOWN: [&str; 3] = ["unknown func", "invalid func", "cannot use helper"];

/// The kernel's answer to a program: its release, the error, the last lines of its verifier, and a remedy if there is
/// one.
#[derive(Debug)]
pub struct Refusal {
    answer: String,
    /// Whether the verifier accepts more with `CAP_PERFMON`.
    lacks_capability: bool,
}

impl Refusal {
    fn by_kernel(error: &io::Error, log: &str) -> Self {
        let words = last_words(log).join(" | ");
        let verifier = if words.is_empty() { words } else { format!("; its verifier ends with: {words}") };
        Self {
            answer: format!("Linux {}: {error}{verifier}", flannel_net::release()),
            lacks_capability: is_by_verifier(error, log) && !flannel_privileges::can_load_fast(),
        }
    }
}

impl From<ProgramError> for Refusal {
    /// To be created on the thread whose program was refused, because it reads that thread's privileges.
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                Self::by_kernel(&io_error, &verifier_log.to_string())
            }
            other => Self { answer: Chain(&other).to_string(), lacks_capability: false },
        }
    }
}

impl Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer)?;
        if self.lacks_capability {
            f.write_str(
                "; add CAP_PERFMON, with which verifiers take more than without (systemd: AmbientCapabilities=, \
                 Kubernetes: securityContext.capabilities.add)",
            )?;
        }
        Ok(())
    }
}

/// The last lines of a verifier's log that say something.
fn last_words(log: &str) -> Vec<String> {
    let says_something =
        |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|statistics| line.starts_with(statistics));
    let lines: Vec<&str> = log.lines().map(str::trim).filter(says_something).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| abbreviated(line)).collect()
}

fn abbreviated(line: &str) -> String {
    let mut text: String = line.chars().take(LONGEST).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

/// Whether the verifier has examined the program and rejected it.
fn is_by_verifier(error: &io::Error, log: &str) -> bool {
    is_of(error, &[Errno::EACCES, Errno::EPERM, Errno::EINVAL])
        && !last_words(log).is_empty()
        && !UNKNOWN.iter().any(|unknown| log.contains(unknown))
}

fn is_of(error: &io::Error, numbers: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|number| numbers.contains(&Errno::from_raw(number)))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::thread;

    use aya::programs::ProgramError;
    use flannel_privileges::enter_thread;
    use nix::errno::Errno;
    use rstest::rstest;

    use super::{LONGEST, Refusal, last_words};

    const LOG: &str = "func#0 @0\n0: (b7) r0 = 0\n; if captured > 0\n17: (85) call bpf_skb_load_bytes#26\n\
                       R4 invalid zero-sized read: u64=[0,288]\nverification time 120 usec\nstack depth 352\n\
                       processed 240 insns (limit 1000000) max_states_per_insn 1 total_states 9\n\n";

    fn refused(errno: Errno, log: &str) -> Refusal {
        Refusal::by_kernel(&io::Error::from(errno), log)
    }

    /// As from a thread without `CAP_PERFMON`.
    fn text_without_capability(errno: Errno, log: &str) -> String {
        thread::scope(|scope| {
            let text = || {
                enter_thread();
                refused(errno, log).to_string()
            };
            scope.spawn(text).join().unwrap()
        })
    }

    #[test]
    fn the_last_words_of_the_verifier_are_shown() {
        let text = refused(Errno::EACCES, LOG).to_string();
        let release = flannel_net::release();
        assert_eq!(
            text,
            format!(
                "Linux {release}: Permission denied (os error 13); its verifier ends with: ; if captured > 0 | \
                 17: (85) call bpf_skb_load_bytes#26 | R4 invalid zero-sized read: u64=[0,288]"
            )
        );
    }

    #[rstest]
    #[case::pointers(Errno::EACCES, "3: R3 pointer comparison prohibited\n", true)]
    #[case::stack(Errno::EINVAL, "attempt to corrupt spilled pointer on stack\n", true)]
    #[case::helper(Errno::EINVAL, "invalid func unknown#188\n", false)]
    #[case::no_verifier(Errno::EINVAL, "", false)]
    #[case::too_complex(Errno::E2BIG, "BPF program is too large.\n", false)]
    fn a_capability_that_would_help_is_named(#[case] errno: Errno, #[case] log: &str, #[case] would: bool) {
        let text = text_without_capability(errno, log);
        assert_eq!(text.contains("add CAP_PERFMON"), would, "{text}");
        let held = refused(errno, log).to_string();
        assert!(!held.contains("CAP_PERFMON"), "{held}");
    }

    #[test]
    fn a_long_line_is_cut() {
        let log = format!("R0=scalar(\n{}\n", "ü".repeat(LONGEST + 1));
        assert_eq!(last_words(&log), ["R0=scalar(".to_owned(), format!("{}…", "ü".repeat(LONGEST))]);
    }

    #[test]
    fn other_errors_are_told_with_their_causes() {
        assert_eq!(Refusal::from(ProgramError::NotLoaded).to_string(), "the program is not loaded");
    }
}
