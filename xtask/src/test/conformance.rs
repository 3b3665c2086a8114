//! Part `conformance`: every language plays the same scenarios, and the table in the documentation says which.

use std::{ffi::OsString, io, path::Path, process::Command, time::Duration};

use super::Ground;
use crate::{
    languages::{c::C, kotlin::Kotlin, node::Node, python::Python, swift::Swift},
    needs, shell,
    tally::Tally,
    workspace,
};

/// Runs the driver of `conformance/` with an actor for each language.
pub(super) fn run(ground: &Ground, _: &str) -> io::Result<Tally> {
    let driver = ground.built.program("conformance")?;
    let actors = workspace::root().join("conformance").join("actors");
    let ready = || {
        let kotlin = Kotlin::with_whimbrel()?.program("whimbrel-conformance-actor", "ActorKt")?;
        let swift = Swift::with_whimbrel()?;
        let swift = swift.words(&swift.build(&["--build-tests"])?.join("whimbrel-conformance-actor"));
        Ok::<_, String>((Python::with_whimbrel()?, Node::with_whimbrel()?, c_actor(&actors)?, kotlin, swift))
    };
    let (python, node, c, kotlin, swift) = match ready() {
        Ok(ready) => ready,
        Err(why) => {
            println!("    {why}");
            return Ok(Tally::fail());
        }
    };
    let results = tempfile(ground)?;
    let mut play = Command::new(driver);
    play.arg("--json").arg(&results);
    let script = |program: &Path, file: &str| [program.as_os_str().to_owned(), actors.join(file).into()];
    let mut python_blocking = script(python.program(), "actor.py").to_vec();
    python_blocking.push("--sync".into());
    for (language, words) in [
        ("Rust", vec![ground.built.program("conformance-actor")?.into()]),
        ("Python", script(python.program(), "actor.py").to_vec()),
        ("Python (sync)", python_blocking),
        ("Node", script(node.program(), "actor.mjs").to_vec()),
        ("C", vec![c.clone().into()]),
        ("C (callbacks)", vec![c.into(), "--callbacks".into()]),
        ("Kotlin", kotlin),
        ("Swift", swift),
    ] {
        play.arg("--actor").arg(actor(language, &words));
    }
    let finished = shell::watch(&mut play, LIMIT, |line| {
        line.iter().filter(|line| !line.starts_with("ok ")).for_each(|line| println!("    {line:.400}"));
    })?;
    let mut tally = Tally::default();
    // A skip stands in the skip file with its reason, and in the table; it is not one of this machine.
    if let Some(numbers) = finished.lines.iter().rev().find_map(|line| summary(line)) {
        tally.passed += numbers.0;
        tally.failed += numbers.1;
    }
    if tally.failed == 0 && (!finished.success() || tally.passed == 0) {
        println!("    {}", finished.ending());
        tally.failed = 1;
    }
    let table = workspace::root().join("docs").join("conformance.md");
    let mut check = Command::new(driver);
    check.args(["table", "--check"]).arg(&table).arg(&results);
    let current = shell::watch(&mut check, LIMIT, |_| ())?;
    if !current.success() {
        println!("{}", current.tail(20));
        println!(
            "    to write it anew: {} table --write {} {}",
            driver.display(),
            table.display(),
            results.display()
        );
    }
    tally.add(if current.success() { Tally::pass() } else { Tally::fail() });
    Ok(tally)
}

/// The actor in C, compiled.
fn c_actor(actors: &Path) -> Result<std::path::PathBuf, String> {
    let c = C::for_tests()?;
    needs::header("cjson/cJSON.h", "libcjson-dev")?;
    let program = needs::cache().join("c-actor");
    c.compile(&actors.join("actor.c"), &program, &["-lcjson"])?;
    Ok(program)
}

/// Where the results go: beside the programs.
fn tempfile(ground: &Ground) -> io::Result<std::path::PathBuf> {
    let folder = ground.built.program("conformance")?.parent().unwrap_or(Path::new("."));
    Ok(folder.join("conformance.json"))
}

/// `NAME=COMMAND`, the command as a shell reads it.
fn actor(language: &str, words: &[OsString]) -> OsString {
    let mut all = OsString::from(language);
    all.push("=");
    for (index, word) in words.iter().enumerate() {
        all.push(if index == 0 { "'" } else { " '" });
        all.push(word.to_string_lossy().replace('\'', "'\\''"));
        all.push("'");
    }
    all
}

/// From `12 passed, 1 failed, 3 skipped`: the first two numbers.
fn summary(line: &str) -> Option<(usize, usize)> {
    let (passed, rest) = line.split_once(" passed, ")?;
    let (failed, _) = rest.split_once(" failed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

/// How long all scenarios of all languages may take: far more than they should.
const LIMIT: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read_and_commands_are_quoted() {
        assert_eq!(summary("12 passed, 1 failed, 3 skipped"), Some((12, 1)));
        assert_eq!(summary("ok Rust offline-first 0.3 s"), None);
        assert_eq!(actor("A", &["/a b".into(), "it's".into()]), "A='/a b' 'it'\\''s'");
    }
}
