//! What ran, what failed, what was skipped and why.

use std::time::Duration;

/// The results of one part.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// A reason for each test that was skipped.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn pass() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub(crate) fn fail() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    pub(crate) fn skip(reason: impl Into<String>) -> Self {
        Self { skipped: vec![reason.into()], ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

/// The parts of a run, in the order they ran.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    name: String,
    took: Duration,
    tally: Tally,
}

impl Table {
    pub(crate) fn add(&mut self, name: &str, took: Duration, tally: Tally) {
        self.0.push(Row { name: name.to_owned(), took, tally });
    }

    /// Prints the table and the last line; whether the run is good. With `strict`, a skip is not.
    pub(crate) fn print(&self, what: &str, strict: bool) -> bool {
        let width = self.0.iter().map(|row| row.name.len()).max().unwrap_or(0).max(what.len());
        println!("\n{what:width$}  {:>7} {:>7} {:>7} {:>8}", "passed", "failed", "skipped", "seconds");
        let mut sum = Tally::default();
        for Row { name, took, tally } in &self.0 {
            let (passed, failed, skipped) = (tally.passed, tally.failed, tally.skipped.len());
            println!("{name:width$}  {passed:>7} {failed:>7} {skipped:>7} {:>8.1}", took.as_secs_f64());
            sum.passed += passed;
            sum.failed += failed;
            sum.skipped.extend(tally.skipped.iter().map(|reason| format!("{name}: {reason}")));
        }
        if !sum.skipped.is_empty() {
            println!("\nSkipped{}:", if strict { " (a failure with --all)" } else { "" });
            sum.skipped.iter().for_each(|reason| println!("  {reason}"));
        }
        println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len());
        sum.failed == 0 && (!strict || sum.skipped.is_empty())
    }
}
