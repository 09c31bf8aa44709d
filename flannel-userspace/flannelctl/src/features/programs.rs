//! Whether the kernel accepts the programs themselves: that a helper exists does not mean that the verifier accepts
//! them.

use flannel_datapath::{Answer, OBJECT, ProgramSettings, check};
use flannel_model::error::Chain;
use serde::Serialize;

use crate::page::{Page, Tone, cell, or_dash, toned};
use crate::table::{Column, Key, Row};

/// The kernel's answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Programs {
    /// To each program that is for this kernel.
    Tried(Vec<Loaded>),
    /// None could be tried, and why.
    Untried(String),
}

#[derive(Debug, Serialize)]
pub(super) struct Loaded {
    /// `vxlan` or `udp`: what it is loaded for.
    pub(super) backend: &'static str,
    pub(super) program: &'static str,
    pub(super) accepted: bool,
    /// Nothing where the kernel does not count them (before 5.16).
    pub(super) verified_instructions: Option<u32>,
    /// What the kernel said of a program that it refused.
    pub(super) refusal: Option<String>,
}

impl Programs {
    /// Loads every program, and drops it.
    pub(super) fn try_all() -> Self {
        match check(OBJECT, ProgramSettings::default()) {
            Ok(answers) => Self::Tried(answers.into_iter().map(Loaded::from).collect()),
            Err(error) => Self::Untried(Chain(&error).to_string()),
        }
    }

    pub(super) fn show(&self, page: &mut Page) {
        page.heading("programs");
        let loaded = match self {
            Self::Untried(why) => {
                page.toned_line(Tone::Bad, &format!("none could be tried: {why}"));
                return;
            }
            Self::Tried(loaded) => loaded,
        };
        page.table(loaded);
    }

    /// Whether none was refused, and they could be tried.
    pub(super) fn are_accepted(&self) -> bool {
        matches!(self, Self::Tried(loaded) if loaded.iter().all(|loaded| loaded.accepted))
    }
}

impl Row for Loaded {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words(
            "backend",
            "BACKEND",
            |loaded| cell(loaded.backend),
            |loaded| Key::text(loaded.backend),
        ),
        Column::words(
            "program",
            "PROGRAM",
            |loaded| cell(loaded.program),
            |loaded| Key::text(loaded.program),
        ),
        Column::words(
            "accepted",
            "ACCEPTED",
            |loaded| if loaded.accepted { toned(Tone::Good, "yes") } else { toned(Tone::Bad, "refused") },
            |loaded| Key::text(if loaded.accepted { "yes" } else { "refused" }),
        ),
        Column::words(
            "instructions",
            "INSTRUCTIONS",
            |loaded| or_dash(loaded.verified_instructions),
            |loaded| Key::of(loaded.verified_instructions, |number| Key::amount(number.into())),
        ),
        Column::words(
            "answer",
            "ANSWER",
            |loaded| cell(loaded.refusal.as_deref().unwrap_or_default()),
            |loaded| Key::of(loaded.refusal.as_ref(), Key::text),
        ),
    ];
}

impl From<Answer> for Loaded {
    fn from(Answer { program, backend, outcome }: Answer) -> Self {
        let (verified_instructions, refusal) = match outcome {
            Ok(accepted) => (accepted.verified_instructions, None),
            Err(refusal) => (None, Some(refusal.to_string())),
        };
        Self { backend, program, accepted: refusal.is_none(), verified_instructions, refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::Programs;

    #[test]
    fn this_kernel_takes_every_program() {
        let Programs::Tried(loaded) = Programs::try_all() else { panic!("none could be tried") };
        let refused: Vec<_> = loaded.iter().filter(|loaded| !loaded.accepted).collect();
        assert!(refused.is_empty(), "{refused:?}");
        for program in ["vxlan_encap", "vxlan_decap", "udp_encap", "udp_decap", "bridge"] {
            assert!(loaded.iter().any(|loaded| loaded.program == program), "{program} was not tried");
        }
    }
}
