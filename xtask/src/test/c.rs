//! Part `c`: the C library as its users have it.

use std::{io, path::PathBuf, process::Command, time::Duration};

use super::Ground;
use crate::{
    languages::c::{self, C},
    needs,
    shell::{self, Finished},
    tally::Tally,
    workspace,
};

/// The tests of the crate, those in C and C++, the installed library, and the examples.
pub(super) fn run(ground: &Ground, _: &str) -> io::Result<Tally> {
    let ready = C::for_tests().and_then(|c| {
        needs::program("python3", "python3")?;
        needs::program("valgrind", "valgrind")?;
        needs::program("cmake", "cmake")?;
        needs::program("pkg-config", "pkg-config")?;
        Ok(c)
    });
    let c = match ready {
        Ok(c) => c,
        Err(why) => {
            println!("    {why}");
            return Ok(Tally::fail());
        }
    };
    let mut tally = Tally::default();
    let mut cargo = shell::cargo();
    cargo.args([
        "test",
        "--locked",
        "--package",
        "whimbrel-c",
        "--features",
        "test-hooks,amqp,http",
        "--lib",
    ]);
    tally.add(judged("the crate", cargo.current_dir(workspace::root()), whole)?);
    let mut tests = Command::new("python3");
    tests.arg(c::folder().join("tests").join("run.py")).arg("--library").arg(c.libraries());
    tally.add(judged("tests", tests.arg("--whimbrel").arg(&ground.built.whimbrel), counted)?);
    tally.add(installed(c)?);
    match examples(c) {
        Ok(programs) => {
            let mut run = Command::new("python3");
            run.arg(workspace::root().join("examples/c/run.py")).arg("--programs").arg(programs);
            tally.add(judged("examples", run.arg("--whimbrel").arg(&ground.built.whimbrel), counted)?);
        }
        Err(why) => {
            println!("    {why}");
            tally.add(Tally::fail());
        }
    }
    Ok(tally)
}

/// pkg-config tells what a compiler needs, and that is enough.
fn installed(c: &C) -> io::Result<Tally> {
    let mut ask = Command::new("pkg-config");
    ask.args(["--cflags", "--libs", "whimbrel"]).env("PKG_CONFIG_PATH", c.libraries().join("pkgconfig"));
    let (found, flags) = shell::output(&mut ask)?;
    if !found {
        println!("    pkg-config does not find whimbrel");
        return Ok(Tally::fail());
    }
    let source = workspace::root().join("examples/c/send_telemetry.c");
    let mut gcc = Command::new("gcc");
    gcc.arg(source).args(flags.split_whitespace()).arg("-o").arg(needs::cache().join("c-pkg-config"));
    judged("pkg-config", &mut gcc, whole)
}

/// The examples, built with CMake against the installed library; the folder they are in.
fn examples(c: &C) -> Result<PathBuf, String> {
    let build = needs::cache().join("c-examples");
    let _ = std::fs::remove_dir_all(&build);
    let source = workspace::root().join("examples").join("c");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(source).arg("-B").arg(&build).arg("-DCMAKE_BUILD_TYPE=Release");
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", c.prefix().display()));
    let mut make = Command::new("cmake");
    make.arg("--build").arg(&build);
    for command in [&mut configure, &mut make] {
        let finished = shell::watch(command, LIMIT, |_| ()).map_err(|error| error.to_string())?;
        if !finished.success() {
            return Err(format!("cmake: {}\n{}", finished.ending(), finished.tail(30)));
        }
    }
    Ok(build)
}

fn judged(name: &str, command: &mut Command, count: fn(&Finished) -> Tally) -> io::Result<Tally> {
    let finished = shell::watch(command, LIMIT, |_| ())?;
    let mut tally = count(&finished);
    if tally.failed == 0 && (!finished.success() || tally.passed == 0) {
        tally.failed = 1;
    }
    println!("    {name}: {} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        println!("    {name}: {}; its last lines:\n{}", finished.ending(), finished.tail(80));
    }
    Ok(tally)
}

fn whole(finished: &Finished) -> Tally {
    if finished.success() { Tally::pass() } else { Tally::fail() }
}

/// From `12 passed, 1 failed`, the last line.
fn counted(finished: &Finished) -> Tally {
    let mut tally = Tally::default();
    let numbers = |line: &str| -> Option<(usize, usize)> {
        let (passed, rest) = line.split_once(" passed, ")?;
        Some((passed.parse().ok()?, rest.strip_suffix(" failed")?.parse().ok()?))
    };
    if let Some((passed, failed)) = finished.lines.iter().rev().find_map(|line| numbers(line)) {
        tally.passed = passed;
        tally.failed = failed;
    }
    tally
}

/// How long one program may take: far more than it should.
const LIMIT: Duration = Duration::from_secs(20 * 60);
