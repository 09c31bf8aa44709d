//! `flannelctl log-level`: how much the running flanneld logs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use flannel_control::socket::{self, LogLevels, Request};
use serde::Serialize;

use super::daemon::Daemon;
use super::output::{Page, Report};
use super::place::Context;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// From which level on to log from now on; without it, what the level is.
    level: Option<Level>,
}

/// A level by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// What does not work.
    Error,
    /// What may not work.
    Warn,
    /// What matters to operators.
    Info,
    /// What helps to find faults.
    Debug,
    /// Everything.
    Trace,
    /// As flanneld's command line says.
    Told,
}

impl From<Level> for socket::LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
            Level::Told => Self::Told,
        }
    }
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let request = Request::LogLevel { level: self.level.map(Into::into) };
        let levels = Daemon::get(context.place).await?.tell(request).await?;
        context.printer.print(&Answer(levels))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(LogLevels);

impl Report for Answer {
    fn show(&self, page: &mut Page) {
        let LogLevels { level, told } = self.0;
        let name = |level: socket::LogLevel| format!("{level:?}").to_lowercase();
        if level == told {
            page.line(name(level));
        } else {
            page.line(format!("{}; by the command line {}", name(level), name(told)));
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::{LogLevel, LogLevels};

    use super::Answer;
    use crate::output::Report as _;

    #[test]
    fn another_level_than_told_is_shown_with_that() {
        let answer = |level| Answer(LogLevels { level, told: LogLevel::Info });
        assert_eq!(answer(LogLevel::Info).text(), "info\n");
        assert_eq!(answer(LogLevel::Trace).text(), "trace; by the command line info\n");
        let json = serde_json::to_string(&answer(LogLevel::Debug)).unwrap();
        assert_eq!(json, r#"{"level":"debug","told":"info"}"#);
    }
}
