//! The skip file: what a language does not run, and which error kinds no scenario provokes, each with a reason.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use crate::scenario::{Scenario, covered_kinds, step::kind};

/// The skip file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skips {
    #[serde(default)]
    skip: Vec<Skip>,
    #[serde(default)]
    kind: Vec<KindSkip>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// Name of a scenario, or the start of some names with a `*` behind.
    scenario: String,
    language: String,
    reason: String,
    owner: String,
    date: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindSkip {
    kind: String,
    reason: String,
    owner: String,
    date: String,
}

impl Skips {
    /// Reads the file and holds it against the scenarios.
    ///
    /// # Errors
    /// Every entry that says too little, fits no scenario or is not needed; every error kind that is neither provoked nor
    /// skipped.
    pub fn read(path: &Path, scenarios: &[Scenario]) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, scenarios).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str, scenarios: &[Scenario]) -> Result<Self, String> {
        let skips: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut faults = Vec::new();
        for Skip { scenario, language, reason, owner, date } in &skips.skip {
            if [language, reason, owner].iter().any(|said| said.trim().is_empty()) || !is_date(date) {
                faults
                    .push(format!("the skip of {scenario} needs a language, a reason, an owner and a date"));
            }
            if !scenarios.iter().any(|known| fits(scenario, &known.name)) {
                faults.push(format!("there is no scenario {scenario}"));
            }
        }
        let covered = covered_kinds(scenarios);
        let mut skipped = BTreeSet::new();
        for KindSkip { kind: name, reason, owner, date } in &skips.kind {
            if [reason, owner].iter().any(|said| said.trim().is_empty()) || !is_date(date) {
                faults.push(format!("the skip of {name} needs a reason, an owner and a date"));
            }
            if covered.contains(name.as_str()) {
                faults.push(format!("{name} is provoked by a scenario; it need not be skipped"));
            }
            faults.extend(kind(name).err());
            skipped.insert(name.as_str());
        }
        for kind in whimbrel::ErrorKind::ALL {
            if !covered.contains(kind.name()) && !skipped.contains(kind.name()) {
                faults.push(format!("no scenario provokes {}, and it is not skipped", kind.name()));
            }
        }
        if faults.is_empty() { Ok(skips) } else { Err(faults.join("; ")) }
    }

    /// Why a language does not run a scenario.
    pub fn reason(&self, scenario: &str, language: &str) -> Option<&str> {
        let found = self.skip.iter().find(|skip| skip.language == language && fits(&skip.scenario, scenario));
        found.map(|skip| skip.reason.as_str())
    }
}

/// Whether a name, or the start of names with a `*` behind, fits a scenario.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn is_date(text: &str) -> bool {
    let shape = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    shape.eq(*b"0000-00-00")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(skips: &str) -> Result<Skips, String> {
        let kinds = whimbrel::ErrorKind::ALL.iter().map(|kind| kind.name()).filter(|name| *name != "CLOSED");
        let steps: String = kinds.map(|kind| format!("{{ call = \"x\", error = \"{kind}\" }},\n")).collect();
        let scenario = Scenario::parse("closing", &format!("title = \"t\"\nsteps = [{steps}]")).unwrap();
        Skips::parse(skips, &[scenario])
    }

    const KIND: &str = "[[kind]]\nkind = \"CLOSED\"\nreason = \"r\"\nowner = \"o\"\ndate = \"2026-11-25\"\n";

    #[test]
    fn every_kind_is_provoked_or_skipped_and_every_skip_fits() {
        let skip = |scenario: &str, date: &str| {
            format!(
                "{KIND}[[skip]]\nscenario = \"{scenario}\"\nlanguage = \"C\"\nreason = \"r\"\nowner = \"o\"\ndate = \"{date}\"\n"
            )
        };
        let skips = parse(&skip("clos*", "2026-11-25")).unwrap();
        assert_eq!((skips.reason("closing", "C"), skips.reason("closing", "Rust")), (Some("r"), None));
        for (text, said) in [
            (String::new(), "no scenario provokes CLOSED"),
            (KIND.replace("\"r\"", "\" \""), "needs a reason"),
            (format!("{KIND}{}", KIND.replace("CLOSED", "TIMEOUT")), "it need not be skipped"),
            (format!("{KIND}{}", KIND.replace("CLOSED", "NO_SUCH")), "no error kind NO_SUCH"),
            (skip("opening", "2026-11-25"), "there is no scenario opening"),
            (skip("closing", "soon"), "a date"),
            (format!("{KIND}until = 1\n"), "unknown field `until`"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
    }
}
