//! What belongs to an installation beside the program.

use clap::Command;
use clap_complete::Shell;

use super::refusal::Refusal;

/// The manual page.
pub(super) fn manual(command: Command) -> Refusal {
    let mut page = Vec::new();
    let command = command.disable_help_subcommand(true).version(env!("CARGO_PKG_VERSION"));
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => Refusal::answer(String::from_utf8_lossy(&page)),
        Err(error) => Refusal::value(error),
    }
}

/// Completions for that shell.
pub(super) fn completions(mut command: Command, shell: Shell) -> Refusal {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Refusal::answer(String::from_utf8_lossy(&script))
}
