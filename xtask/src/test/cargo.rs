//! Tests that cargo builds. They are built in one go and run one program at a time, so that each can be named, timed and
//! stopped.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Ground, LIMIT};
use crate::{
    needs,
    shell::{self, Finished},
    tally::Tally,
    workspace::{self, Package},
};

/// What the parts run.
pub(super) struct Built {
    tests: Vec<Program>,
    /// The command line.
    pub(super) whimbrel: PathBuf,
    /// The programs of `examples/`.
    pub(super) examples: Vec<PathBuf>,
    /// All programs, by name.
    programs: BTreeMap<String, PathBuf>,
}

impl Built {
    /// The program of this name.
    pub(super) fn program(&self, name: &str) -> io::Result<&Path> {
        let built = self.programs.get(name).map(PathBuf::as_path);
        built.ok_or_else(|| io::Error::other(format!("cargo built no program {name}")))
    }
}

/// A test program.
struct Program {
    /// Id of the package it tests.
    package: String,
    /// Name of the cargo target it was made from.
    target: String,
    /// `lib`, `bin` or `test`.
    kind: String,
    file: PathBuf,
}

/// Builds everything the parts run; `None` when something does not compile, which cargo has shown by then.
pub(super) fn build() -> io::Result<Option<Built>> {
    // The same selection and features each time: otherwise cargo builds dependencies once more.
    let Some(built) = artifacts(&["build", "--bins", "--examples"])? else { return Ok(None) };
    let Some(tests) = artifacts(&["test", "--no-run"])? else { return Ok(None) };
    let programs = built.iter().filter(|artifact| !artifact.test && artifact.kind == "bin");
    let programs: BTreeMap<_, _> =
        programs.map(|artifact| (artifact.target.clone(), artifact.file.clone())).collect();
    let whimbrel = programs.get("whimbrel").cloned();
    let whimbrel = whimbrel.ok_or_else(|| io::Error::other("cargo built no program whimbrel"))?;
    let tests = tests
        .into_iter()
        .filter(|artifact| artifact.test)
        .map(|Artifact { package, target, kind, file, .. }| Program { package, target, kind, file })
        .collect();
    let examples = built.into_iter().filter(|artifact| artifact.package.contains("/examples/"));
    let examples = examples.map(|artifact| artifact.file).collect();
    Ok(Some(Built { tests, whimbrel, examples, programs }))
}

/// Builds the command line and tells where it is; `None` when it does not compile.
pub(crate) fn whimbrel() -> io::Result<Option<PathBuf>> {
    let built = artifacts(&["build", "--bins"])?;
    Ok(built
        .and_then(|built| built.into_iter().find(|artifact| artifact.is_program("whimbrel")))
        .map(|it| it.file))
}

/// Part of a package: its unit tests and those integration tests that are no part of their own.
pub(super) fn package(ground: &Ground, name: &str) -> io::Result<Tally> {
    let Some(member) = ground.members.iter().find(|member| member.short_name() == name) else {
        return Ok(Tally::skip("not in this workspace"));
    };
    programs(ground, |package, program| package.id == member.id && part_of_its_own(&program.target).is_none())
}

/// Part `kill`.
pub(super) fn kill(ground: &Ground, name: &str) -> io::Result<Tally> {
    programs(ground, |_, program| part_of_its_own(&program.target) == Some(name))
}

/// Part `disk-full`: its tests mount a small tmpfs, in a mount namespace of their own so that nothing stays mounted.
pub(super) fn disk_full(ground: &Ground, name: &str) -> io::Result<Tally> {
    let folder = needs::cache().join("mount-probe");
    std::fs::create_dir_all(&folder)?;
    let may_mount = |flags: &[&str]| {
        let mut probe = Command::new("unshare");
        probe.args(flags).args(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&folder);
        probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let Some(flags) = ways.into_iter().find(|flags| may_mount(flags)) else {
        return Ok(Tally::skip(
            "needs a small tmpfs, and neither root nor a user namespace may mount one here",
        ));
    };
    programs_in(Some(flags), ground, |_, program| part_of_its_own(&program.target) == Some(name))
}

/// Part `docs`.
pub(super) fn doc_tests(_: &Ground, name: &str) -> io::Result<Tally> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--locked", "--workspace", "--all-features", "--doc"]).current_dir(workspace::root());
    run(name, &mut cargo, true)
}

/// The part that an integration test is run in, where that is not its package's.
fn part_of_its_own(target: &str) -> Option<&'static str> {
    match target {
        "disk_full" => Some("disk-full"),
        "kill" | "kill_commands" => Some("kill"),
        _ => None,
    }
}

fn programs(ground: &Ground, wanted: impl Fn(&Package, &Program) -> bool) -> io::Result<Tally> {
    programs_in(None, ground, wanted)
}

/// Runs the wanted test programs, in a namespace made with these flags of `unshare`.
fn programs_in(
    namespace: Option<&[&str]>,
    ground: &Ground,
    wanted: impl Fn(&Package, &Program) -> bool,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for member in &ground.members {
        for program in ground
            .built
            .tests
            .iter()
            .filter(|program| program.package == member.id && wanted(member, program))
        {
            let mut command = match namespace {
                None => Command::new(&program.file),
                Some(flags) => {
                    let mut unshare = Command::new("unshare");
                    unshare.args(flags).arg(&program.file);
                    unshare
                }
            };
            command.current_dir(&member.folder).env("CARGO_MANIFEST_DIR", &member.folder);
            command.env("CARGO_PKG_NAME", &member.name).env("CARGO_PKG_VERSION", &member.version);
            let name = match program.kind.as_str() {
                "test" => format!("{}/tests/{}", member.short_name(), program.target),
                _ => format!("{} unit tests", member.short_name()),
            };
            tally.add(run(&name, &mut command, true)?);
        }
    }
    Ok(tally)
}

/// Runs a program that reports as `cargo test` does. With `must_report`, silence about results is a failure.
fn run(name: &str, command: &mut Command, must_report: bool) -> io::Result<Tally> {
    let (started, mut last, mut done) = (Instant::now(), Instant::now(), 0_usize);
    let finished = shell::watch(command, LIMIT, |line| {
        done += usize::from(line.is_some_and(|line| line.starts_with("test ") && line.contains(" ... ")));
        if last.elapsed() > Duration::from_secs(10) {
            last = Instant::now();
            println!("    {name}: {done} tests done, {} s", started.elapsed().as_secs());
        }
    })?;
    let tally = counted(&finished, must_report);
    let seconds = started.elapsed().as_secs_f64();
    println!("    {name}: {} passed, {} failed, {seconds:.1} s", tally.passed, tally.failed);
    if tally.failed > 0 {
        println!("    {name}: {}; its last lines:\n{}", finished.ending(), finished.tail(80));
    }
    Ok(tally)
}

/// Counts the results in the output of a test program.
fn counted(finished: &Finished, must_report: bool) -> Tally {
    let mut tally = Tally::default();
    let mut reported = false;
    for line in &finished.lines {
        if let Some(results) = line.strip_prefix("test result: ") {
            reported = true;
            tally.passed += number_before(results, " passed");
            tally.failed += number_before(results, " failed");
        } else if let Some((test, rest)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored"))
        {
            tally
                .skipped
                .push(format!("{test}{}", if rest.is_empty() { ", marked as ignored" } else { rest }));
        }
    }
    // A program that died, or never said a word, is a failure even when no test of it was counted as one.
    if tally.failed == 0 && (!finished.success() || (must_report && !reported)) {
        tally.failed = 1;
    }
    tally
}

/// The number in front of `word`: 12 in `ok. 12 passed; 0 failed`.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Something cargo built that can be run.
struct Artifact {
    package: String,
    target: String,
    kind: String,
    test: bool,
    file: PathBuf,
}

impl Artifact {
    fn is_program(&self, name: &str) -> bool {
        !self.test && self.kind == "bin" && self.target == name
    }
}

/// Runs cargo for the whole workspace, with its progress going to the terminal, and collects the programs it built. `None`
/// when the build failed.
fn artifacts(arguments: &[&str]) -> io::Result<Option<Vec<Artifact>>> {
    let mut cargo = shell::cargo();
    cargo.args(arguments).args(["--locked", "--workspace", "--all-features"]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(workspace::root());
    let mut child = cargo.stdout(Stdio::piped()).spawn()?;
    let mut artifacts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let message: Value = serde_json::from_str(&line?).unwrap_or_default();
            artifacts.extend(artifact(&message));
        }
    }
    Ok(child.wait()?.success().then_some(artifacts))
}

fn artifact(message: &Value) -> Option<Artifact> {
    let target = message.get("target")?;
    Some(Artifact {
        package: message.get("package_id")?.as_str()?.to_owned(),
        target: target.get("name")?.as_str()?.to_owned(),
        kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
        test: message.get("profile")?.get("test")?.as_bool()?,
        file: PathBuf::from(message.get("executable")?.as_str()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(good: bool, text: &str) -> Finished {
        let status = Command::new(if good { "true" } else { "false" }).status().unwrap();
        Finished { status: Some(status), lines: text.lines().map(str::to_owned).collect() }
    }

    #[test]
    fn results_are_counted_from_the_summary_lines() {
        let tally = counted(
            &finished(
                true,
                "running 3 tests\ntest a ... ok\ntest b ... ignored, needs a printer\ntest c ... ignored\n\
                 test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n\
                 test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            ),
            true,
        );
        assert_eq!((tally.passed, tally.failed), (15, 0));
        assert_eq!(tally.skipped, ["b, needs a printer", "c, marked as ignored"]);
    }

    #[test]
    fn a_program_that_dies_is_a_failure_whatever_it_said() {
        assert_eq!(
            counted(&finished(false, "test result: ok. 3 passed; 0 failed; 0 ignored"), true).failed,
            1
        );
        assert_eq!(
            counted(&finished(false, "test result: FAILED. 3 passed; 2 failed; 0 ignored"), true).failed,
            2
        );
        assert_eq!(counted(&finished(true, ""), true).failed, 1);
        assert_eq!(counted(&finished(true, ""), false).failed, 0);
        let killed = Finished { status: None, lines: vec!["test result: ok. 3 passed; 0 failed".into()] };
        assert_eq!(counted(&killed, true).failed, 1);
    }
}
