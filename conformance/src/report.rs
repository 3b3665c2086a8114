//! Results: as JSON from a run, and as the table in the documentation.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// What a run found out.
#[derive(Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The languages, in the order of their columns.
    pub languages: Vec<String>,
    /// By scenario, then by language.
    pub results: BTreeMap<String, BTreeMap<String, Outcome>>,
}

/// How a scenario ended in a language.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "result", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// As the scenario says.
    Passed,
    /// Otherwise.
    Failed {
        /// Number of the step, if it was one.
        step: Option<usize>,
        /// What was expected and what was seen.
        why: String,
    },
    /// It was not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Report {
    /// Adds a result.
    pub fn add(&mut self, scenario: &str, language: &str, outcome: Outcome) {
        if !self.languages.iter().any(|known| known == language) {
            self.languages.push(language.to_owned());
        }
        self.results.entry(scenario.to_owned()).or_default().insert(language.to_owned(), outcome);
    }

    /// Adds the results of another run; its word is the newer one.
    pub fn merge(&mut self, other: Self) {
        for language in other.languages {
            for (scenario, outcomes) in &other.results {
                if let Some(outcome) = outcomes.get(&language) {
                    self.add(scenario, &language, outcome.clone());
                }
            }
        }
    }

    /// How many passed, failed, and were skipped.
    pub fn tally(&self) -> (usize, usize, usize) {
        let mut tally = (0, 0, 0);
        for outcome in self.results.values().flat_map(BTreeMap::values) {
            match outcome {
                Outcome::Passed => tally.0 += 1,
                Outcome::Failed { .. } => tally.1 += 1,
                Outcome::Skipped { .. } => tally.2 += 1,
            }
        }
        tally
    }

    /// The table of the documentation.
    ///
    /// # Errors
    /// Every cell that is missing or failed, and every result of a scenario that does not exist.
    pub fn table(&self, scenarios: &[Scenario]) -> Result<String, String> {
        let mut faults: Vec<String> = (self.results.keys())
            .filter(|name| scenarios.iter().all(|scenario| scenario.name != **name))
            .map(|name| format!("{name}: there is no such scenario"))
            .collect();
        if self.languages.is_empty() {
            faults.push("there are no results".to_owned());
        }
        let mut reasons: Vec<&str> = Vec::new();
        let mut table = HEAD.replace("{count}", &scenarios.len().to_string());
        let _ = writeln!(table, "| Promise | {} | Scenario |", self.languages.join(" | "));
        let _ = writeln!(table, "| --- |{} --- |", " :-: |".repeat(self.languages.len()));
        for Scenario { name, title, .. } in scenarios {
            let _ = write!(table, "| {title} |");
            for language in &self.languages {
                let cell = match self.results.get(name).and_then(|outcomes| outcomes.get(language)) {
                    Some(Outcome::Passed) => "yes".to_owned(),
                    Some(Outcome::Skipped { reason }) => {
                        let at = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
                            reasons.push(reason);
                            reasons.len() - 1
                        });
                        format!("skipped [^{}]", at + 1)
                    }
                    Some(Outcome::Failed { .. }) => {
                        faults.push(format!("{name} failed in {language}"));
                        continue;
                    }
                    None => {
                        faults.push(format!("{name} was not run in {language}"));
                        continue;
                    }
                };
                let _ = write!(table, " {cell} |");
            }
            let _ = writeln!(table, " `{name}` |");
        }
        for (at, reason) in reasons.iter().enumerate() {
            let lead = if at == 0 { "\n" } else { "" };
            let _ = writeln!(table, "{lead}[^{}]: {reason}", at + 1);
        }
        if faults.is_empty() { Ok(table) } else { Err(faults.join("\n")) }
    }
}

const HEAD: &str = "\
# Conformance

What is promised, and in which language a scenario has shown it, against a real hub behind a network that fails on demand.
The {count} scenarios are in `conformance/scenarios/`, what is skipped and why in `conformance/skip.toml`. This page is
generated from runs: `conformance table --write`.

";

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios() -> Vec<Scenario> {
        let text = |title: &str| format!("title = \"{title}\"\nsteps = [{{ open = \"d1\" }}]");
        ["a", "b"].map(|name| Scenario::parse(name, &text(&format!("promise {name}"))).unwrap()).into()
    }

    fn full() -> Report {
        let mut report = Report::default();
        report.add("a", "Rust", Outcome::Passed);
        report.add("b", "Rust", Outcome::Skipped { reason: "it cannot".into() });
        let mut python = Report::default();
        python.add("a", "Python", Outcome::Passed);
        python.add("b", "Python", Outcome::Passed);
        report.merge(python);
        report
    }

    #[test]
    fn a_full_table_has_a_cell_for_each_scenario_and_language() {
        let table = full().table(&scenarios()).unwrap();
        for line in [
            "| Promise | Rust | Python | Scenario |",
            "| promise a | yes | yes | `a` |",
            "| promise b | skipped [^1] | yes | `b` |",
            "[^1]: it cannot",
        ] {
            assert!(table.lines().any(|known| known == line), "{line:?} is not in\n{table}");
        }
        assert_eq!(full().tally(), (3, 0, 1));
        let json = serde_json::to_string(&full()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), full());
    }

    #[test]
    fn a_cell_that_is_missing_or_failed_is_an_error() {
        let mut missing = full();
        missing.results.get_mut("b").unwrap().remove("Python");
        assert_eq!(missing.table(&scenarios()).unwrap_err(), "b was not run in Python");
        let mut failed = full();
        failed.add("a", "Rust", Outcome::Failed { step: Some(1), why: "no".into() });
        assert_eq!(failed.table(&scenarios()).unwrap_err(), "a failed in Rust");
        let mut unknown = full();
        unknown.add("c", "Rust", Outcome::Passed);
        assert!(unknown.table(&scenarios()).unwrap_err().contains("c: there is no such scenario"));
        assert!(Report::default().table(&scenarios()).unwrap_err().contains("no results"));
    }
}
