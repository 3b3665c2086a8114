//! Which rows of the error table the scenarios look at.

use std::collections::BTreeSet;

use toml::Value;

use super::{
    Deed, Scenario,
    step::{Cancel, Expected, Storm},
};

/// Names of the error kinds that `scenarios` provoke: as the error of a call, as the outcome of a message, or by cancelling.
pub fn covered_kinds(scenarios: &[Scenario]) -> BTreeSet<&str> {
    let mut kinds = BTreeSet::new();
    for step in scenarios.iter().flat_map(|scenario| &scenario.steps) {
        match &step.deed {
            Deed::Cancel(Cancel { .. }) | Deed::Storm(Storm { .. }) => {
                kinds.insert("CANCELLED");
            }
            deed => match deed.expected() {
                Ok(Some(Expected::Error(error))) => {
                    kinds.extend(
                        whimbrel::ErrorKind::ALL
                            .iter()
                            .map(|kind| kind.name())
                            .filter(|name| *name == error.kind),
                    );
                }
                Ok(Some(Expected::Ok(ok))) => match ok.get("outcome").and_then(Value::as_str) {
                    Some("expired") => drop(kinds.insert("EXPIRED")),
                    Some("rejected") => drop(kinds.insert("REJECTED")),
                    _ => {}
                },
                _ => {}
            },
        }
    }
    kinds
}
