//! Which tests, and how they run: the words behind `--`.

use std::io;
use std::num::NonZeroUsize;
use std::thread;

use clap::Parser;

const TWICE: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// The words behind `--`, which are those of Rust's own test programs. A second `--` means nothing more.
#[derive(Clone, Debug, Default, Parser)]
#[command(bin_name = "cargo xtask test --", no_binary_name = true, disable_help_flag = true)]
pub struct Selection {
    /// Parts of the names of tests; without any, all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Parts of the names of tests that do not run
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Names are whole ones
    #[arg(long)]
    exact: bool,
    /// Shows what tests print also where they pass
    #[arg(long, alias = "show-output")]
    pub nocapture: bool,
    /// How many tests run side by side
    #[arg(long, value_name = "NUMBER")]
    test_threads: Option<NonZeroUsize>,
}

impl Selection {
    /// # Errors
    /// A word is none of these.
    pub fn parse(words: &[String]) -> Result<Self, clap::Error> {
        Self::try_parse_from(words.iter().filter(|word| *word != "--"))
    }

    /// Leaves out tests whose names hold one of `parts`, too.
    pub fn without(&self, parts: &[&str]) -> Self {
        let mut selection = self.clone();
        selection.skip.extend(parts.iter().map(|&part| part.to_owned()));
        selection
    }

    /// How many tests run side by side; by default twice as many as there are processors: most of what they do is
    /// waiting.
    ///
    /// # Errors
    /// Nobody knows how many processors there are.
    pub fn at_once(&self) -> io::Result<NonZeroUsize> {
        self.test_threads.map_or_else(|| Ok(thread::available_parallelism()?.saturating_mul(TWICE)), Ok)
    }

    /// The arguments by which a test program lists these tests.
    pub fn filters(&self) -> Vec<String> {
        let skipped = self.skip.iter().flat_map(|name| ["--skip".to_owned(), name.clone()]);
        let exact = self.exact.then(|| "--exact".to_owned());
        self.names.iter().cloned().chain(skipped).chain(exact).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;

    fn parse(line: &str) -> Selection {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Selection::parse(&words).unwrap()
    }

    #[test]
    fn names_and_manners_are_told_apart() {
        let selection = parse("guard:: -- --nocapture --test-threads 1 --skip xdp");
        assert_eq!(selection.filters(), ["guard::", "--skip", "xdp"]);
        assert!(selection.nocapture);
        assert_eq!(selection.test_threads.map(usize::from), Some(1));
        assert_eq!(parse("-- --exact a::b").filters(), ["a::b", "--exact"]);
        assert!(parse("").filters().is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let error = Selection::parse(&["--shuffle".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("--shuffle"), "{error}");
    }

    #[test]
    fn more_can_be_left_out() {
        assert_eq!(parse("a --skip b").without(&["c"]).filters(), ["a", "--skip", "b", "--skip", "c"]);
    }
}
