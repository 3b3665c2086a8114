//! Parts `examples` and `demo`: whole programs, which pass when they end well.

use std::{io, process::Command, time::Duration};

use super::Ground;
use crate::{shell, tally::Tally};

/// Runs every program of `examples/` to its end.
pub(super) fn examples(ground: &Ground, _: &str) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for program in &ground.built.examples {
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        tally.add(to_the_end(&name, &mut Command::new(program), Duration::from_secs(120))?);
    }
    Ok(if ground.built.examples.is_empty() { Tally::skip("there is no example") } else { tally })
}

/// Runs the demo, which judges itself.
pub(super) fn demo(ground: &Ground, _: &str) -> io::Result<Tally> {
    let mut demo = Command::new(&ground.built.whimbrel);
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
