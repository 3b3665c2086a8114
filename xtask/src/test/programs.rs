//! Parts `examples` and `demo`: whole programs, which pass when they end well.

use std::{io, process::Command, time::Duration};

use super::Ground;
use crate::{shell, tally::Tally, workspace};

/// Runs every program of `examples/rust` to its end.
pub(super) fn examples(ground: &Ground, _: &str) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for member in ground.members.iter().filter(|member| member.short_name() == "examples") {
        for target in member.targets.iter().filter(|target| matches!(target.kind.as_str(), "bin" | "example"))
        {
            let mut cargo = shell::cargo();
            cargo.args(["run", "--locked", "--quiet", "--package", &member.name]);
            cargo.args([format!("--{}", target.kind), target.name.clone()]).current_dir(workspace::root());
            tally.add(to_the_end(&target.name, &mut cargo, Duration::from_secs(180))?);
        }
    }
    if tally.passed + tally.failed == 0 {
        return Ok(Tally::skip("there is no example"));
    }
    Ok(tally)
}

/// Runs the demo, which judges itself.
pub(super) fn demo(ground: &Ground, _: &str) -> io::Result<Tally> {
    let mut demo = Command::new(&ground.whimbrel);
    demo.args(["demo", "--seconds", "12", "--devices", "3"]);
    to_the_end("whimbrel demo", &mut demo, Duration::from_secs(180))
}

fn to_the_end(name: &str, command: &mut Command, limit: Duration) -> io::Result<Tally> {
    let finished = shell::watch(command, limit, |_| ())?;
    println!("    {name}: {}", finished.ending());
    if finished.success() {
        return Ok(Tally::pass());
    }
    println!("{}", finished.tail(80));
    Ok(Tally::fail())
}
