//! Scenarios: what a file may hold, and reading it strictly.

mod coverage;
#[cfg(test)]
mod schema_tests;
pub mod step;

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

pub use coverage::covered_kinds;
pub use step::{Deed, Step};

/// A scenario, as its file has it.
#[derive(Debug)]
pub struct Scenario {
    /// Name of the file, without `.toml`.
    pub name: String,
    /// The promise.
    pub title: String,
    /// The hub it is played against.
    pub hub: HubPlan,
    /// Devices that are registered before it begins.
    pub devices: Vec<String>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// How the hub of a scenario is started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubPlan {
    /// It is not there when the scenario begins; a step starts it.
    pub absent: bool,
    /// Settings by their names in the configuration file.
    pub set: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    #[serde(default)]
    hub: HubPlan,
    #[serde(default = "usual_devices")]
    devices: Vec<String>,
    steps: Vec<toml::Table>,
}

fn usual_devices() -> Vec<String> {
    vec!["d1".to_owned()]
}

impl Scenario {
    /// Reads the text of a scenario called `name`.
    ///
    /// # Errors
    /// Which scenario, which step, and what is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("scenario {name}: {why}");
        let file: File = toml::from_str(text).map_err(|error| wrong(&error))?;
        if file.title.trim().is_empty() || file.title.ends_with('.') {
            return Err(wrong(&"the title is a promise in one sentence, without the full stop"));
        }
        let steps: Result<Vec<_>, String> = (file.steps.into_iter().enumerate())
            .map(|(at, table)| Step::read(table).map_err(|why| wrong(&format!("step {}: {why}", at + 1))))
            .collect();
        let steps = steps?;
        if steps.is_empty() {
            return Err(wrong(&"there are no steps"));
        }
        Ok(Self { name: name.to_owned(), title: file.title, hub: file.hub, devices: file.devices, steps })
    }

    /// Reads every scenario in a folder, by name.
    ///
    /// # Errors
    /// As [`Scenario::parse`]; when the folder cannot be read.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, String> {
        let unreadable = |error| format!("{}: {error}", folder.display());
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "toml") {
                return Err(format!("{}: only scenarios belong here", path.display()));
            }
            all.push(Self::parse(&name, &fs::read_to_string(&path).map_err(unreadable)?)?);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Scenario::parse("s", text).unwrap_err()
    }

    #[test]
    fn a_scenario_is_read_and_what_is_unknown_is_refused() {
        let good = "title = \"a promise\"\nsteps = [{ open = \"d1\" }, { hub = \"stop\" }]";
        assert_eq!(Scenario::parse("s", good).unwrap().steps.len(), 2);
        for (text, said) in [
            ("title = \"a promise\"\nsteps = []", "no steps"),
            ("title = \"a promise.\"\nsteps = [{ open = \"d1\" }]", "full stop"),
            ("title = \"t\"\nstep = 1\nsteps = [{ open = \"d1\" }]", "unknown field `step`"),
            ("title = \"t\"\nhub = { sett = {} }\nsteps = [{ open = \"d1\" }]", "unknown field `sett`"),
            ("title = \"t\"\nsteps = [{ open = \"d1\", optons = {} }]", "step 1: unknown field `optons`"),
            ("title = \"t\"\nsteps = [{ opn = \"d1\" }]", "step 1: it does none of"),
            ("title = \"t\"\nsteps = [{ open = \"d1\", kill = \"actor\" }]", "step 1: it does two things"),
            ("title = \"t\"\nsteps = [{ hub = \"explode\" }]", "unknown variant `explode`"),
            (
                "title = \"t\"\nsteps = [{ call = \"x\", error = \"NO_SUCH\" }]",
                "there is no error kind NO_SUCH",
            ),
            (
                "title = \"t\"\nsteps = [{ call = \"x\", error = \"CLOSED\", ok = {} }]",
                "more than one expectation",
            ),
        ] {
            assert!(refused(text).contains(said), "{:?} does not say {said:?}", refused(text));
        }
    }
}
