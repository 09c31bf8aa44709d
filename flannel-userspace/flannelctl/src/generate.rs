//! `flannelctl completions` and `flannelctl man`: what an installation needs besides the program.

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Outcome;
use super::{Cli, output};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell they are for.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> anyhow::Result<Outcome> {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        output::print(&String::from_utf8(script)?)?;
        Ok(Outcome::AsItShouldBe)
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// `flannelctl`, or one of its commands, such as `flannelctl-verify`.
    #[arg(default_value = "flannelctl", value_name = "PAGE")]
    page: String,
}

impl Man {
    pub(super) fn run(&self) -> anyhow::Result<Outcome> {
        output::print(&page(&self.page)?)?;
        Ok(Outcome::AsItShouldBe)
    }
}

/// The manual page of that name.
fn page(name: &str) -> anyhow::Result<String> {
    let command = match name.strip_prefix("flannelctl-") {
        Some(verb) => {
            let mut command = Cli::command();
            // Now each command of it knows its whole name.
            command.build();
            command.find_subcommand(verb).cloned()
        }
        None => (name == "flannelctl").then(Cli::command),
    };
    let command = command.with_context(|| {
        format!(
            "there is no page {name}: say flannelctl or flannelctl-COMMAND, such as flannelctl-verify; `flanneld --man` \
             prints flanneld's"
        )
    })?;
    let mut page = Vec::new();
    clap_mangen::Man::new(command.version(env!("CARGO_PKG_VERSION"))).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_of_programs_and_commands() {
        for (name, word) in [
            ("flannelctl", "sysdump"),
            ("flannelctl-counters", "watch"),
            ("flannelctl-log-level", "configured"),
        ] {
            let page = page(name).unwrap();
            assert!(page.contains(".TH ") && page.contains(word), "{name}: {page}");
        }
        let error = page("flannelctl-nothing").unwrap_err().to_string();
        assert!(error.contains("flannelctl-COMMAND"), "{error}");
    }
}
