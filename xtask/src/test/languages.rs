//! Parts `python`, `node` and `kotlin`: the packages, tested with what their users have.

use std::{io, path::Path, process::Command, time::Duration};

use super::Ground;
use crate::{
    languages::{kotlin::Kotlin, node::Node, python::Python},
    shell::{self, Finished},
    tally::Tally,
    workspace,
};

/// Part `python`: the tests, the stubs against the module, and the types.
pub(super) fn python(ground: &Ground, _: &str) -> io::Result<Tally> {
    let python = match Python::with_whimbrel() {
        Ok(python) => python,
        Err(why) => return Ok(failed(&why)),
    };
    let mut tally = Tally::default();
    let mut tests = python.run(&["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests"]);
    tally.add(run("pytest", with_hub(&mut tests, ground), pytest)?);
    for (name, arguments) in [
        ("stubs", ["-m", "mypy.stubtest", "whimbrel", "--concise"].as_slice()),
        ("mypy", &["-m", "mypy"]),
        ("pyright", &["-m", "pyright"]),
    ] {
        tally.add(run(name, &mut python.run(arguments), whole)?);
    }
    Ok(tally)
}

/// Part `node`: the tests and the types.
pub(super) fn node(ground: &Ground, _: &str) -> io::Result<Tally> {
    let node = match Node::with_whimbrel() {
        Ok(node) => node,
        Err(why) => return Ok(failed(&why)),
    };
    let mut tally = Tally::default();
    tally.add(run("tests", with_hub(&mut node.npm(&["test", "--silent"]), ground), node_test)?);
    tally.add(run("types", &mut node.npm(&["run", "--silent", "check"]), whole)?);
    Ok(tally)
}

/// Part `kotlin`: the tests of the package, and the examples, each from start to end.
pub(super) fn kotlin(ground: &Ground, _: &str) -> io::Result<Tally> {
    let kotlin = match Kotlin::with_whimbrel() {
        Ok(kotlin) => kotlin,
        Err(why) => return Ok(failed(&why)),
    };
    let mut tally = Tally::default();
    let mut tests = kotlin.maven(&["package", "--projects", "whimbrel", "--also-make"]);
    tally.add(run("tests", with_hub(&mut tests, ground), surefire)?);
    let sources = workspace::root().join("examples/kotlin/src/main/kotlin");
    let mut examples: Vec<_> = std::fs::read_dir(sources)?.flatten().map(|file| file.path()).collect();
    examples.sort();
    for example in examples {
        let name = example.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let words = kotlin.program("whimbrel-examples", &format!("{name}Kt")).map_err(io::Error::other)?;
        let Some((java, arguments)) = words.split_first() else { continue };
        tally.add(run(&name, with_hub(Command::new(java).args(arguments), ground), whole)?);
    }
    Ok(tally)
}

/// Tells a test where the program is that it starts hubs with.
pub(super) fn with_hub<'a>(command: &'a mut Command, ground: &Ground) -> &'a mut Command {
    command.env("WHIMBREL_BINARY", Path::new(&ground.built.whimbrel))
}

pub(super) fn failed(why: &str) -> Tally {
    println!("    {why}");
    Tally::fail()
}

/// Runs a program and counts with `count`; a program that ended badly and counted no failure is one.
pub(super) fn run(name: &str, command: &mut Command, count: fn(&Finished) -> Tally) -> io::Result<Tally> {
    Ok(judged(name, &shell::watch(command, LIMIT, |_| ())?, count))
}

/// The same for a program that has run.
pub(super) fn judged(name: &str, finished: &Finished, count: fn(&Finished) -> Tally) -> Tally {
    let mut tally = count(finished);
    if tally.failed == 0 && (!finished.success() || tally.passed == 0) {
        tally.failed = 1;
    }
    println!("    {name}: {} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        println!("    {name}: {}; its last lines:\n{}", finished.ending(), finished.tail(120));
    }
    tally
}

/// A program that is one test.
fn whole(finished: &Finished) -> Tally {
    if finished.success() { Tally::pass() } else { Tally::fail() }
}

/// From `3 failed, 120 passed, 2 skipped in 31.40s`, and `SKIPPED [1] file:7: why`.
fn pytest(finished: &Finished) -> Tally {
    let mut tally = Tally::default();
    for line in &finished.lines {
        if let Some((results, _)) = line.trim_matches('=').trim().split_once(" in ")
            && results
                .split(", ")
                .all(|part| part.split_once(' ').is_some_and(|(count, _)| count.parse::<u32>().is_ok()))
        {
            for (count, word) in results.split(", ").filter_map(|part| part.split_once(' ')) {
                let count = count.parse().unwrap_or(0);
                match word {
                    "passed" | "xfailed" => tally.passed += count,
                    "failed" | "error" | "errors" | "xpassed" => tally.failed += count,
                    _ => {}
                }
            }
        } else if let Some(skipped) = line.strip_prefix("SKIPPED ") {
            tally.skipped.push(skipped.to_owned());
        }
    }
    tally
}

/// From `# pass 12` and its like, and `ok 3 - name # SKIP why`.
fn node_test(finished: &Finished) -> Tally {
    let mut tally = Tally::default();
    for line in &finished.lines {
        let line = line.trim_start_matches(['#', 'ℹ']).trim();
        let number = |word: &str| line.strip_prefix(word).and_then(|rest| rest.trim().parse::<usize>().ok());
        if let Some(count) = number("pass ") {
            tally.passed += count;
        } else if let Some(count) = number("fail ").or_else(|| number("cancelled ")) {
            tally.failed += count;
        } else if let Some((name, why)) = line.split_once(" # SKIP") {
            tally.skipped.push(format!("{name}:{why}"));
        }
    }
    tally
}

/// From `Tests run: 12, Failures: 1, Errors: 0, Skipped: 2`, which is said for each class and once more at the end.
fn surefire(finished: &Finished) -> Tally {
    let mut tally = Tally::default();
    for line in &finished.lines {
        let Some((_, results)) = line.split_once("Tests run: ") else { continue };
        // Those of a class say how long it took, too; the last line does not.
        if results.contains("Time elapsed") {
            continue;
        }
        let numbers: Vec<usize> =
            results.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
        if let [run, failures, errors, skipped] = *numbers {
            tally = Tally::default();
            tally.failed = failures + errors;
            tally.passed = run.saturating_sub(failures + errors + skipped);
            tally.skipped = vec!["marked as disabled".to_owned(); skipped];
        }
    }
    tally
}

/// How long one program may take: far more than it should.
const LIMIT: Duration = Duration::from_secs(20 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(text: &str) -> Finished {
        Finished { status: None, lines: text.lines().map(str::to_owned).collect() }
    }

    #[test]
    fn results_of_pytest_are_counted() {
        let tally = pytest(&finished(
            "....s.F\nSKIPPED [1] tests/test_a.py:7: no uvloop\n==== 1 failed, 5 passed, 1 skipped, 2 warnings in 3.20s ====",
        ));
        assert_eq!((tally.passed, tally.failed), (5, 1));
        assert_eq!(tally.skipped, ["[1] tests/test_a.py:7: no uvloop"]);
        assert_eq!(pytest(&finished("7 passed in 0.1s")).passed, 7);
        assert_eq!(pytest(&finished("found 3 files in 2 folders")).passed, 0);
    }

    #[test]
    fn results_of_surefire_are_counted() {
        let tally = surefire(&finished(
            "[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 1.2 s -- in dev.A\n\
             [ERROR] Tests run: 5, Failures: 1, Errors: 1, Skipped: 1",
        ));
        assert_eq!((tally.passed, tally.failed, tally.skipped.len()), (2, 2, 1));
        assert_eq!(surefire(&finished("BUILD SUCCESS")).passed, 0);
    }

    #[test]
    fn results_of_node_are_counted() {
        let tally = node_test(&finished(
            "ok 1 - a\nok 2 - b # SKIP not here\n# tests 4\n# pass 2\n# fail 1\n# cancelled 1\n# skipped 1",
        ));
        assert_eq!((tally.passed, tally.failed), (2, 2));
        assert_eq!(tally.skipped, ["ok 2 - b: not here"]);
        assert_eq!(node_test(&finished("ℹ pass 3\nℹ fail 0")).passed, 3);
    }
}
