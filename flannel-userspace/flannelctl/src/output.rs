//! Output: columns for people, in colours only on a terminal, or JSON for programs.

use std::io::{self, IsTerminal as _, Write as _, stdout};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::exit::{Code, Outcome};
use super::page::{Page, Tone, printable};

/// Version of all documents. Within a version, members keep their meaning, and others may be added.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document; a command that keeps running prints one per line.
    Json,
}

/// Something that can be shown to people. Its serialization is a stable interface.
pub(super) trait Report: Serialize {
    /// Writes it for people.
    fn show(&self, page: &mut Page);

    /// Whether what it tells is as it should be.
    fn outcome(&self) -> Outcome {
        Outcome::AsItShouldBe
    }

    /// As people see it without colours.
    #[cfg(test)]
    fn text(&self) -> String {
        let mut page = Page::new(false, true);
        self.show(&mut page);
        page.into_text()
    }
}

/// What is written for programs.
#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    content: &'a T,
}

impl<'a, T> Document<'a, T> {
    const fn of(content: &'a T) -> Self {
        Self { schema_version: SCHEMA_VERSION, content }
    }
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
struct Failed {
    error: Told,
}

#[derive(Debug, Serialize)]
struct Told {
    code: Code,
    message: String,
}

impl Failed {
    fn of(error: &anyhow::Error) -> Self {
        Self { error: Told { code: Code::of(error), message: format!("{error:#}") } }
    }
}

impl Report for Failed {
    fn show(&self, page: &mut Page) {
        page.toned_line(Tone::Bad, &self.error.message);
    }
}

/// Prints reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    format: Format,
    is_terminal: bool,
    has_colours: bool,
    has_headers: bool,
}

impl Printer {
    /// Colours are for a terminal whose user has not set `NO_COLOR`.
    pub(super) fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_terminal = stdout().is_terminal();
        Self { format, is_terminal, has_colours: wanted && is_terminal, has_headers: true }
    }

    /// Whether answers are for programs.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether what is printed may have colours.
    pub(super) const fn has_colours(self) -> bool {
        self.has_colours
    }

    /// One whose tables have no headers.
    pub(super) const fn without_headers(self) -> Self {
        Self { has_headers: false, ..self }
    }

    /// Prints the whole answer, and returns what it says.
    pub(super) fn print<R: Report>(&self, report: &R) -> anyhow::Result<Outcome> {
        print(&match self.format {
            Format::Json => {
                serde_json::to_string_pretty(&Document::of(report)).context("cannot write JSON")?
            }
            Format::Table => self.page(report),
        })?;
        Ok(report.outcome())
    }

    /// Prints one of many answers, of which people see the last few: its JSON is one line.
    pub(super) fn print_next<R: Report>(&self, report: &R) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.print_line(report),
            Format::Table => print(&self.page(report)),
        }
    }

    /// Prints one of many answers in the place of the former one, where there is a terminal, or why there is none.
    pub(super) fn redraw<R: Report>(&self, report: &anyhow::Result<R>) -> anyhow::Result<()> {
        match report {
            Ok(report) => self.draw(report),
            Err(error) => self.draw(&Failed::of(error)),
        }
    }

    fn draw<R: Report>(&self, report: &R) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.print_line(report),
            Format::Table if self.is_terminal => {
                let (_, height) = crossterm::terminal::size().unwrap_or((80, 24));
                print_raw(&screen(&self.page(report), height.into()))
            }
            // One empty line separates the answers.
            Format::Table => print_raw(&format!("{}\n", self.page(report))),
        }
    }

    /// Says why there is no answer, at standard error.
    pub(super) fn print_error(&self, error: &anyhow::Error) {
        let failed = Failed::of(error);
        match self.format {
            Format::Json => {
                eprintln!("{}", serde_json::to_string(&Document::of(&failed)).unwrap_or_default());
            }
            Format::Table => eprintln!("flannelctl: {}", printable(&failed.error.message)),
        }
    }

    fn print_line(&self, report: &impl Report) -> anyhow::Result<()> {
        print(&serde_json::to_string(&Document::of(report)).context("cannot write JSON")?)
    }

    fn page(&self, report: &impl Report) -> String {
        let mut page = Page::new(self.has_colours, self.has_headers);
        report.show(&mut page);
        page.into_text()
    }
}

/// What shows a page from the top left corner of a terminal of that many lines, in the place of whatever was there. Lines
/// that are too long end at its edge (ECMA-48, DECAWM).
fn screen(page: &str, height: usize) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let shown = if lines.len() < height { lines.len() } else { height.saturating_sub(2) };
    let mut screen = "\x1b[?7l\x1b[H".to_owned();
    for line in lines.iter().take(shown) {
        screen.push_str(&format!("{line}\x1b[K\n"));
    }
    if shown < lines.len() {
        screen.push_str(&format!("and {} more lines\x1b[K\n", lines.len() - shown));
    }
    screen + "\x1b[J\x1b[?7h"
}

/// Prints a text and an end of line unless it has one.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    print_raw(&format!("{text}{end}"))
}

fn print_raw(text: &str) -> anyhow::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot print")
}

/// Whether the reader closed the output, as `head` does, which is no failure.
pub(super) fn is_unread(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Document, Failed, screen};
    use crate::exit::{Code, Failure};

    #[test]
    fn documents_have_a_version_and_errors_a_code() {
        let error = Failure::new(Code::NoDatapath, "no datapath at /x").into();
        assert_eq!(
            serde_json::to_value(Document::of(&Failed::of(&error))).unwrap(),
            json!({"schema_version": 1, "error": {"code": "no_datapath", "message": "no datapath at /x"}})
        );
    }

    #[test]
    fn a_page_fits_its_terminal() {
        assert_eq!(screen("a\nb\n", 3), "\x1b[?7l\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h");
        let cut = screen("a\nb\nc\nd\n", 4);
        assert!(cut.contains("b\x1b[K\nand 2 more lines\x1b[K\n\x1b[J") && !cut.contains('c'), "{cut:?}");
    }
}
