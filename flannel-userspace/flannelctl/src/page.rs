//! Output for people: lines, pairs and columns, in colours where they are wanted.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};

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
#[expect(clippy::needless_pass_by_value, reason = "figures and words are both given as they are")]
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell::new(printable(&text.to_string()))
}

/// A word that is meant so.
pub(super) fn toned(tone: Tone, text: impl ToString) -> Cell {
    cell(text).fg(tone.colour())
}

/// A word, or a dash where there is none.
pub(super) fn or_dash(text: Option<impl ToString>) -> Cell {
    text.map_or_else(|| Cell::new("-"), cell)
}

/// Without what a terminal obeys: leases are other hosts' words. Lines stay.
pub(super) fn printable(text: &str) -> String {
    text.replace(|letter: char| letter.is_control() && letter != '\n', "\u{fffd}")
}

/// A column's name, and on which side its words stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) name: &'a str,
    pub(super) alignment: CellAlignment,
}

/// Output for people, assembled piece by piece.
#[derive(Debug)]
pub(super) struct Page {
    has_colours: bool,
    has_headers: bool,
    text: String,
}

impl Page {
    pub(super) const fn new(has_colours: bool, has_headers: bool) -> Self {
        Self { has_colours, has_headers, text: String::new() }
    }

    /// What was assembled.
    pub(super) fn into_text(self) -> String {
        self.text
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
        self.text.push_str(&printable(text.as_ref()));
        self.text.push('\n');
    }

    /// A line that is meant so.
    pub(super) fn toned_line(&mut self, tone: Tone, text: &str) {
        if self.has_colours {
            self.text.push_str(&format!("{}{}\x1b[0m\n", tone.escape(), printable(text)));
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

    /// Rows of words under headers.
    pub(super) fn columns(&mut self, headers: &[Header<'_>], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let mut table = plain();
        if self.has_headers {
            table.set_header(headers.iter().map(|header| header.name));
        }
        for row in rows {
            table.add_row(Row::from(row));
        }
        for (index, header) in headers.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(header.alignment);
            }
        }
        self.add(table);
    }

    fn add(&mut self, mut table: Table) {
        if self.has_colours {
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
    use comfy_table::CellAlignment;

    use super::{Header, Page, Tone, cell, or_dash, toned};

    fn page(has_colours: bool, has_headers: bool) -> String {
        let mut page = Page::new(has_colours, has_headers);
        page.pairs([("subnet", toned(Tone::Good, "10.5.1.0/24")), ("device", or_dash(None::<u32>))]);
        page.heading("packets");
        let headers = [
            Header { name: "REASON", alignment: CellAlignment::Left },
            Header { name: "PACKETS", alignment: CellAlignment::Right },
        ];
        page.columns(&headers, [vec![toned(Tone::Bad, "no_peer"), cell(7)]]);
        page.toned_line(Tone::Warning, "look");
        page.text
    }

    #[test]
    fn without_colours_there_are_letters_alone() {
        assert_eq!(
            page(false, true),
            " subnet  10.5.1.0/24\n device  -\n\npackets\n REASON   PACKETS\n no_peer        7\nlook\n"
        );
    }

    #[test]
    fn without_headers_there_are_rows_alone() {
        assert!(page(false, false).contains("packets\n no_peer  7\nlook\n"), "{}", page(false, false));
    }

    #[test]
    fn colours_change_no_letter() {
        let coloured = page(true, true);
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
        assert_eq!(words(&bare), words(&page(false, true)));
    }

    #[test]
    fn what_others_wrote_does_not_reach_the_terminal() {
        let mut page = Page::new(true, true);
        page.line("a\x1b[2Jb\r");
        page.toned_line(Tone::Bad, "c\x07\n");
        let headers = [Header { name: "X", alignment: CellAlignment::Left }];
        page.columns(&headers, [vec![cell("d\x1b]0;e\x07")]]);
        for bad in ["\x1b[2J", "\r", "\x07", "\x1b]"] {
            assert!(!page.text.contains(bad), "{:?}", page.text);
        }
    }
}
