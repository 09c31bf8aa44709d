//! Tables: each kind of row says which columns it has; sorting and headers are the same for all.

use std::cmp::Reverse;
use std::marker::PhantomData;
use std::net::IpAddr;

use clap::Args;
use clap::builder::PossibleValuesParser;
use comfy_table::{Cell, CellAlignment};
use ipnetwork::IpNetwork;

use super::output::Printer;
use super::page::{Header, Page};

/// What a table is sorted by. What is missing comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A figure: the largest comes first.
    Amount(Reverse<u64>),
    /// A time: the shortest comes first.
    Seconds(u64),
    Subnet(IpNetwork),
    Address(IpAddr),
    Text(String),
    Missing,
}

impl Key {
    pub(super) const fn amount(amount: u64) -> Self {
        Self::Amount(Reverse(amount))
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The key that `make` makes of what is there.
    pub(super) fn of<T>(value: Option<T>, make: impl Fn(T) -> Self) -> Self {
        value.map_or(Self::Missing, make)
    }
}

/// A column of a table with a row for each `R`.
pub(super) struct Column<R> {
    /// What it is called where the table is to be sorted by it; without a name it cannot be.
    pub(super) name: &'static str,
    header: Header<'static>,
    cell: fn(&R) -> Cell,
    pub(super) key: fn(&R) -> Key,
    /// Whether it is left out where no row has anything in it.
    pub(super) is_optional: bool,
}

impl<R> Column<R> {
    /// A column of words.
    pub(super) const fn words(
        name: &'static str,
        header: &'static str,
        cell: fn(&R) -> Cell,
        key: fn(&R) -> Key,
    ) -> Self {
        let header = Header { name: header, alignment: CellAlignment::Left };
        Self { name, header, cell, key, is_optional: false }
    }

    /// A column of figures.
    pub(super) const fn figures(
        name: &'static str,
        header: &'static str,
        cell: fn(&R) -> Cell,
        key: fn(&R) -> Key,
    ) -> Self {
        let header = Header { name: header, alignment: CellAlignment::Right };
        Self { name, header, cell, key, is_optional: false }
    }

    /// The same, left out where no row has anything in it.
    pub(super) const fn where_there_is_one(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Whether a table of `rows` has it.
    pub(super) fn is_shown<'a>(&self, rows: impl IntoIterator<Item = &'a R>) -> bool
    where
        R: 'a,
    {
        !self.is_optional || rows.into_iter().any(|row| (self.key)(row) != Key::Missing)
    }

    /// Its name above the table.
    pub(super) const fn header(&self) -> &'static str {
        self.header.name
    }

    /// On which side its words stand.
    pub(super) const fn alignment(&self) -> CellAlignment {
        self.header.alignment
    }

    /// What a row has in it.
    pub(super) fn text(&self, row: &R) -> String {
        (self.cell)(row).content()
    }

    /// What explains the others.
    pub(super) const fn explanation(cell: fn(&R) -> Cell) -> Self {
        Self::words("", "", cell, |_| Key::Missing)
    }
}

/// What a table has a row for each of.
pub(super) trait Row: Sized + 'static {
    /// Its columns, from the left.
    const COLUMNS: &'static [Column<Self>];

    /// The names by which a table of it can be sorted.
    fn names() -> impl Iterator<Item = &'static str> {
        Self::COLUMNS.iter().map(|column| column.name).filter(|name| !name.is_empty())
    }

    /// Sorts rows by the column of that name; equal ones keep their order.
    fn sort(rows: &mut [Self], name: &str) {
        if let Some(column) = Self::COLUMNS.iter().find(|column| column.name == name) {
            rows.sort_by_cached_key(column.key);
        }
    }
}

impl Page {
    /// A table with a row for each of `rows`.
    pub(super) fn table<'a, R: Row>(&mut self, rows: impl IntoIterator<Item = &'a R>) {
        let rows: Vec<&R> = rows.into_iter().collect();
        let columns: Vec<&Column<R>> =
            R::COLUMNS.iter().filter(|column| column.is_shown(rows.iter().copied())).collect();
        let headers: Vec<Header<'_>> = columns.iter().map(|column| column.header).collect();
        let cells = |row: &R| columns.iter().map(|column| (column.cell)(row)).collect();
        self.columns(&headers, rows.iter().map(|row| cells(row)));
    }
}

/// How a table is shown.
#[derive(Debug, Args)]
pub(super) struct Sorting<R: Row> {
    /// Sort by this column: figures the largest first, all else the smallest first.
    #[arg(long, value_name = "COLUMN", value_parser = PossibleValuesParser::new(R::names()))]
    sort: Option<String>,
    #[command(flatten)]
    headers: Headers,
    #[arg(skip)]
    rows: PhantomData<R>,
}

impl<R: Row> Sorting<R> {
    /// Brings rows, whose columns are named as `R`'s, into the wanted order.
    pub(super) fn sort<S: Row>(&self, rows: &mut [S]) {
        if let Some(name) = &self.sort {
            S::sort(rows, name);
        }
    }

    /// With headers or without.
    pub(super) const fn printer(&self, printer: Printer) -> Printer {
        self.headers.printer(printer)
    }
}

/// Whether tables have headers.
#[derive(Debug, Args)]
pub(super) struct Headers {
    /// Tables without their first line.
    #[arg(long)]
    no_headers: bool,
}

impl Headers {
    /// With headers or without.
    pub(super) const fn printer(&self, printer: Printer) -> Printer {
        if self.no_headers { printer.without_headers() } else { printer }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Column, Key, Page, Row, Sorting};
    use crate::page::{cell, or_dash};

    #[derive(Debug)]
    struct Host(&'static str, Option<u64>, &'static str);

    impl Row for Host {
        const COLUMNS: &'static [Column<Self>] = &[
            Column::words("name", "NAME", |host| cell(host.0), |host| Key::text(host.0)),
            Column::figures("sent", "SENT", |host| or_dash(host.1), |host| Key::of(host.1, Key::amount)),
            Column::explanation(|host| cell(host.2)),
        ];
    }

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        sorting: Sorting<Host>,
    }

    fn sorted(by: &str) -> String {
        let words = Words::try_parse_from(["x", "--sort", by]).unwrap();
        let mut hosts = [Host("b", Some(7), ""), Host("c", None, "lost"), Host("a", Some(70), "")];
        words.sorting.sort(&mut hosts);
        let mut page = Page::new(false, false);
        page.table(&hosts);
        page.into_text()
    }

    #[test]
    fn rows_come_in_the_wanted_order() {
        assert_eq!(sorted("name"), " a  70\n b   7\n c   -  lost\n");
        assert_eq!(sorted("sent"), " a  70\n b   7\n c   -  lost\n");
    }

    #[test]
    fn an_unknown_column_is_refused_and_the_columns_are_named() {
        let error = Words::try_parse_from(["x", "--sort", "size"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("[possible values: name, sent]"), "{error}");
    }
}
