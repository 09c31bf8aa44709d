//! `flannelctl log-level`: how much the running flanneld logs.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use flannel_control::socket::{LogLevels, Request, WantedLevel};

use super::exit::Outcome;
use super::orders;
use super::output::Report;
use super::page::Page;
use super::place::Context;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// From which level on to log from now on, or `configured`, that of flanneld's command line; without it, what the
    /// level is.
    #[arg(value_parser = PossibleValuesParser::new(WantedLevel::names()).try_map(|name| name.parse::<WantedLevel>()))]
    level: Option<WantedLevel>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        orders::give::<LogLevels>(context, Request::LogLevel { level: self.level }).await
    }
}

impl Report for LogLevels {
    fn show(&self, page: &mut Page) {
        let Self { level, configured } = *self;
        if level == configured {
            page.line(level.name());
        } else {
            page.line(format!("{}; by the command line {}", level.name(), configured.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::{LogLevel, LogLevels};

    use crate::output::Report as _;

    #[test]
    fn another_level_than_the_configured_one_is_shown_with_that() {
        let answer = |level| LogLevels { level, configured: LogLevel::Info };
        assert_eq!(answer(LogLevel::Info).text(), "info\n");
        assert_eq!(answer(LogLevel::Trace).text(), "trace; by the command line info\n");
        let json = serde_json::to_string(&answer(LogLevel::Debug)).unwrap();
        assert_eq!(json, r#"{"level":"debug","configured":"info"}"#);
    }
}
