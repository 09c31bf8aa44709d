//! Output: columns for people, in colours only on a terminal, or JSON for programs.

use std::io::{self, IsTerminal as _, Write as _, stdout};

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};
use serde::Serialize;

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

    /// As people see it without colours.
    #[cfg(test)]
    fn text(&self) -> String {
        let mut page = Page::new(false);
        self.show(&mut page);
        page.text
    }
}

/// Prints reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    format: Format,
    colours: bool,
}

impl Printer {
    /// Colours are for a terminal whose user has not set `NO_COLOR`.
    pub(super) fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, colours: wanted && stdout().is_terminal() }
    }

    /// Prints the whole answer.
    pub(super) fn print(&self, report: &impl Report) -> anyhow::Result<()> {
        self.write(report, serde_json::to_string_pretty)
    }

    /// Prints one of many answers: its JSON is one line.
    pub(super) fn print_next(&self, report: &impl Report) -> anyhow::Result<()> {
        self.write(report, serde_json::to_string)
    }

    fn write<R: Report>(
        &self,
        report: &R,
        json: impl Fn(&R) -> serde_json::Result<String>,
    ) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Json => json(report).context("cannot write JSON")?,
            Format::Table => {
                let mut page = Page::new(self.colours);
                report.show(&mut page);
                page.text
            }
        };
        print(&text)
    }
}

/// Prints a text and an end of line unless it has one.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = stdout().lock();
    let written = write!(stdout, "{text}").and_then(|()| match text.ends_with('\n') {
        true => Ok(()),
        false => writeln!(stdout),
    });
    written.and_then(|()| stdout.flush()).context("cannot print")
}

/// Whether the reader closed the output, as `head` does, which is no failure.
pub(super) fn is_unread(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Aside,
}

impl Tone {
    const fn colour(self) -> Color {
        match self {
            Self::Good => Color::Green,
            Self::Warning => Color::Yellow,
            Self::Bad => Color::Red,
            Self::Aside => Color::DarkGrey,
        }
    }

    /// The escape sequence that begins it (ECMA-48).
    const fn escape(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Aside => "\x1b[90m",
        }
    }
}

/// A word of a table.
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell::new(text)
}

/// A word that is meant so.
pub(super) fn toned(tone: Tone, text: impl ToString) -> Cell {
    Cell::new(text).fg(tone.colour())
}

/// A word, or a dash where there is none.
pub(super) fn or_dash(text: Option<impl ToString>) -> Cell {
    text.map_or_else(|| Cell::new("-"), Cell::new)
}

/// Output for people, assembled piece by piece.
#[derive(Debug)]
pub(super) struct Page {
    colours: bool,
    text: String,
}

impl Page {
    const fn new(colours: bool) -> Self {
        Self { colours, text: String::new() }
    }

    /// Begins a part.
    pub(super) fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(text);
    }

    /// A line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// A line that is meant so.
    pub(super) fn toned_line(&mut self, tone: Tone, text: &str) {
        if self.colours {
            self.line(format!("{}{text}\x1b[0m", tone.escape()));
        } else {
            self.line(text);
        }
    }

    /// Names and what they stand for, one pair a line.
    pub(super) fn pairs<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, Cell)>) {
        let mut table = plain();
        for (name, value) in pairs {
            table.add_row(Row::from(vec![Cell::new(name), value]));
        }
        self.add(table);
    }

    /// Columns under a header; those whose name begins with `>` are numbers.
    pub(super) fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let mut table = plain();
        table.set_header(header.iter().map(|name| name.trim_start_matches('>')));
        for row in rows {
            table.add_row(Row::from(row));
        }
        for (index, _) in header.iter().enumerate().filter(|(_, name)| name.starts_with('>')) {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.add(table);
    }

    fn add(&mut self, mut table: Table) {
        if self.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for line in table.lines() {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }
}

/// Columns without rulers, which suit cut and awk as well as people.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

#[cfg(test)]
mod tests {
    use super::{Page, Tone, cell, or_dash, toned};

    fn page(colours: bool) -> String {
        let mut page = Page::new(colours);
        page.pairs([("subnet", toned(Tone::Good, "10.5.1.0/24")), ("device", or_dash(None::<u32>))]);
        page.heading("packets");
        page.table(&["REASON", ">PACKETS"], [vec![toned(Tone::Bad, "no_peer"), cell(7)]]);
        page.toned_line(Tone::Warning, "look");
        page.text
    }

    #[test]
    fn without_colours_there_are_letters_alone() {
        assert_eq!(
            page(false),
            " subnet  10.5.1.0/24\n device  -\n\npackets\n REASON   PACKETS\n no_peer        7\nlook\n"
        );
    }

    #[test]
    fn colours_change_no_letter() {
        let coloured = page(true);
        assert!(coloured.contains("\x1b[33mlook\x1b[0m"), "{coloured:?}");
        assert!(coloured.contains("\x1b[") && coloured.contains("10.5.1.0/24"));
        let mut bare = String::new();
        for part in coloured.split("\x1b[") {
            bare.push_str(
                part.split_once('m')
                    .filter(|_| !bare.is_empty() || coloured.starts_with('\x1b'))
                    .map_or(part, |(_, rest)| rest),
            );
        }
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&bare), words(&page(false)));
    }
}
