//! Part `swift`: the Swift package's tests, its examples, and what its README opens with.

use std::{fs, io, path::Path};

use super::{
    Ground,
    languages::{failed, judged, run},
};
use crate::{
    languages::swift::{self as package, Swift},
    shell::Finished,
    tally::Tally,
};

/// Runs the tests, then each program of `examples/swift` to its end.
pub(super) fn swift(ground: &Ground, _: &str) -> io::Result<Tally> {
    let ready = Swift::with_whimbrel().and_then(|swift| Ok((swift, swift.build(&["--build-tests"])?)));
    let (swift, built) = match ready {
        Ok(ready) => ready,
        Err(why) => return Ok(failed(&why)),
    };
    let whimbrel = Path::new(&ground.built.whimbrel);
    let mut tally = judged("tests", &swift.test(&built, &[("WHIMBREL_BINARY", whimbrel)])?, xctest);
    for folder in fs::read_dir(package::examples())? {
        let name = folder?.file_name().to_string_lossy().into_owned();
        // What a program leaves where it runs is not for the next one.
        let place = package::cache().join("run");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place)?;
        let mut program = swift.program(&built.join(format!("whimbrel-example-{name}")));
        program.env("WHIMBREL_BINARY", whimbrel).current_dir(place);
        tally.add(run(&name, &mut program, said_something)?);
    }
    tally.add(readme()?);
    Ok(tally)
}

/// The README opens with the program that was run.
fn readme() -> io::Result<Tally> {
    let program = fs::read_to_string(package::examples().join("readme/main.swift"))?;
    let file = package::folder().join("README.md");
    let text = fs::read_to_string(&file)?;
    let first =
        text.split_once("```swift\n").and_then(|(_, rest)| rest.split_once("```")).map(|(block, _)| block);
    if first == Some(program.as_str()) {
        return Ok(Tally::pass());
    }
    println!("    {} does not open with examples/swift/readme/main.swift as it is", file.display());
    Ok(Tally::fail())
}

/// A program that ends well and shows something.
fn said_something(finished: &Finished) -> Tally {
    if finished.success() && !finished.lines.is_empty() { Tally::pass() } else { Tally::fail() }
}

/// From `Executed 12 tests, with 1 test skipped and 2 failures (0 unexpected) in 1.2 seconds`; the last one is about all.
fn xctest(finished: &Finished) -> Tally {
    let mut tally = Tally::default();
    for line in &finished.lines {
        if let Some((_, about)) = line.split_once("Executed ")
            && let Some((all, rest)) = about.split_once(" test")
            && let Ok(all) = all.parse::<usize>()
        {
            let number = |word: &str| -> usize {
                let before = rest.split_once(word).map_or("", |(before, _)| before);
                before.rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
            };
            let (failures, skipped) =
                (number(" failure"), number(" test skipped").max(number(" tests skipped")));
            tally.failed = failures.min(all);
            tally.passed = all.saturating_sub(failures + skipped);
        } else if let Some((test, why)) = line.split_once(" : Test skipped") {
            tally.skipped.push(format!(
                "{}: {}",
                test.rsplit(' ').next().unwrap_or(test),
                why.trim_start_matches([':', ' ', '-'])
            ));
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_xctest_are_counted() {
        let finished =
            |text: &str| Finished { status: None, lines: text.lines().map(str::to_owned).collect() };
        let tally = xctest(&finished(
            "Test Suite 'A' passed at 1\n\t Executed 3 tests, with 0 failures (0 unexpected) in 0.1 (0.1) seconds\n\
             /a/b.swift:7: A.testB : Test skipped: no such thing\n\
             Test Suite 'All tests' failed at 1\n\t Executed 9 tests, with 1 test skipped and 2 failures (1 unexpected) in 2 seconds",
        ));
        assert_eq!((tally.passed, tally.failed), (6, 2));
        assert_eq!(tally.skipped, ["A.testB: no such thing"]);
        assert_eq!(xctest(&finished("Executed 1 test, with 0 failures")).passed, 1);
        assert_eq!(xctest(&finished("Build complete!")).passed, 0);
    }
}
