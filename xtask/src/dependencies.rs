//! The licences and bans of `deny.toml`, judged from what cargo itself says about the dependency tree, so that they hold on
//! machines without cargo-deny too.

use std::{fs, io};

use toml::{Table, Value};

use crate::{
    tally::Tally,
    workspace::{self, Package},
};

pub(crate) fn check() -> io::Result<Tally> {
    let text = fs::read_to_string(workspace::root().join("deny.toml"))?;
    let policy: Table = text.parse().map_err(|error| io::Error::other(format!("deny.toml: {error}")))?;
    let (allowed, exceptions, banned) = (allowed(&policy), exceptions(&policy), banned(&policy));
    let packages = workspace::packages()?;
    let mut good = true;
    for (package, _) in &packages {
        if let Some(complaint) = complaint(package, &allowed, &exceptions, &banned) {
            println!("{} {}: {complaint}", package.name, package.version);
            good = false;
        }
    }
    println!("{} packages judged", packages.len());
    Ok(if good { Tally::pass() } else { Tally::fail() })
}

fn complaint(
    package: &Package,
    allowed: &[&str],
    exceptions: &[(&str, &str)],
    banned: &[(&str, &str)],
) -> Option<String> {
    if let Some((_, reason)) = banned.iter().find(|(name, _)| *name == package.name) {
        return Some(format!("banned: {reason}"));
    }
    match package.licence.as_deref() {
        None => Some("names no licence".into()),
        Some(licence) => {
            let of_its_own =
                exceptions.iter().filter(|(name, _)| *name == package.name).map(|(_, licence)| *licence);
            let allowed: Vec<&str> = allowed.iter().copied().chain(of_its_own).collect();
            (!acceptable(licence, &allowed)).then(|| format!("licence {licence} is not in deny.toml"))
        }
    }
}

fn allowed(policy: &Table) -> Vec<&str> {
    list(policy, "licenses", "allow").filter_map(Value::as_str).collect()
}

/// A crate, and a licence that is allowed for it alone.
fn exceptions(policy: &Table) -> Vec<(&str, &str)> {
    list(policy, "licenses", "exceptions")
        .filter_map(|exception| {
            let licences = exception.get("allow")?.as_array()?;
            Some((exception.get("crate")?.as_str()?, licences))
        })
        .flat_map(|(name, licences)| {
            licences.iter().filter_map(Value::as_str).map(move |licence| (name, licence))
        })
        .collect()
}

fn banned(policy: &Table) -> Vec<(&str, &str)> {
    list(policy, "bans", "deny")
        .filter_map(|ban| {
            Some((ban.get("crate")?.as_str()?, ban.get("reason").and_then(Value::as_str).unwrap_or_default()))
        })
        .collect()
}

fn list<'a>(policy: &'a Table, section: &str, name: &str) -> impl Iterator<Item = &'a Value> {
    policy.get(section).and_then(|section| section.get(name)).and_then(Value::as_array).into_iter().flatten()
}

/// Whether an SPDX expression can be satisfied with `allowed` licences. `/` is the old way to write `OR`.
fn acceptable(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    let good = either(&mut tokens, allowed);
    good && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut good = both(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        good |= both(tokens, allowed);
    }
    good
}

fn both(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut good = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        good &= one(tokens, allowed);
    }
    good
}

fn one(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    match tokens.next() {
        Some("(") => either(tokens, allowed) & tokens.next_if_eq(&")").is_some(),
        Some(licence) if tokens.next_if_eq(&"WITH").is_some() => {
            let whole = format!("{licence} WITH {}", tokens.next().unwrap_or_default());
            allowed.contains(&whole.as_str())
        }
        Some(licence) => allowed.contains(&licence),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_judged_as_a_whole() {
        let allowed = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"];
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT AND ISC",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(acceptable(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "MIT WITH Some-exception",
            "(MIT",
            "MIT)",
        ] {
            assert!(!acceptable(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn an_exception_is_for_one_crate() {
        let policy: Table =
            "[licenses]\nallow = [\"MIT\"]\nexceptions = [{ crate = \"a\", allow = [\"MPL-2.0\"] }]"
                .parse()
                .unwrap();
        let package = |name: &str| Package {
            id: String::new(),
            name: name.to_owned(),
            version: String::new(),
            licence: Some("MPL-2.0".to_owned()),
            folder: std::path::PathBuf::new(),
        };
        let judged = |name| complaint(&package(name), &allowed(&policy), &exceptions(&policy), &[]);
        assert_eq!(judged("a"), None);
        assert!(judged("b").unwrap().contains("MPL-2.0"));
    }

    #[test]
    fn bans_come_with_their_reason() {
        let policy: Table = "[bans]\ndeny = [{ crate = \"openssl\", reason = \"rustls\" }]".parse().unwrap();
        assert_eq!(banned(&policy), [("openssl", "rustls")]);
    }
}
