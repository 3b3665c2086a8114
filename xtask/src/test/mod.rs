//! `cargo xtask test`: every test whose tools are there, with a table of what ran, what was skipped and why.

mod c;
mod cargo;
mod conformance;
mod languages;
mod peers;
mod programs;
mod swift;

use std::{
    io,
    time::{Duration, Instant},
};

use clap::Args;

pub(crate) use cargo::whimbrel;

use crate::{
    shell::say,
    tally::{Table, Tally},
    workspace::{self, Package},
};

#[derive(Args)]
pub(crate) struct Options {
    /// A skip is a failure.
    #[arg(long)]
    all: bool,
    /// Runs this part only; may be given again.
    #[arg(long, value_name = "NAME")]
    part: Vec<String>,
    /// Names the parts and runs none.
    #[arg(long)]
    list: bool,
}

/// What the parts work with.
struct Ground {
    members: Vec<Package>,
    built: cargo::Built,
}

/// A part: its name, what it is, how it runs.
struct Part {
    name: String,
    about: String,
    run: fn(&Ground, &str) -> io::Result<Tally>,
}

pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let members = workspace::members()?;
    let parts = parts(&members);
    if options.list {
        parts.iter().for_each(|part| println!("{:12} {}", part.name, part.about));
        return Ok(true);
    }
    if let Some(unknown) = options.part.iter().find(|name| parts.iter().all(|part| part.name != **name)) {
        return Err(io::Error::other(format!("there is no part {unknown}; see cargo xtask test --list")));
    }

    say("building all tests and programs (the first time takes minutes)");
    let started = Instant::now();
    let mut table = Table::default();
    let Some(built) = cargo::build()? else {
        table.add("build", started.elapsed(), Tally::fail());
        return Ok(table.print("part", options.all));
    };
    let ground = Ground { members, built };
    for part in parts.iter().filter(|part| options.part.is_empty() || options.part.contains(&part.name)) {
        say(format!("{}: {}", part.name, part.about));
        let started = Instant::now();
        let tally = (part.run)(&ground, &part.name)?;
        table.add(&part.name, started.elapsed(), tally);
    }
    Ok(table.print("part", options.all))
}

/// Members that are not tested as cargo tests packages.
const PARTS_OF_THEIR_OWN: [&str; 4] = ["examples", "bindings-c", "bindings-python", "bindings-node"];

/// Every part, in the order they run: quick ones first.
fn parts(members: &[Package]) -> Vec<Part> {
    let mut parts: Vec<Part> = members
        .iter()
        .filter(|member| !PARTS_OF_THEIR_OWN.contains(&member.short_name().as_str()))
        .map(|member| Part {
            name: member.short_name(),
            about: format!("unit and integration tests of {}", member.name),
            run: cargo::package,
        })
        .collect();
    let mut add = |name: &str, about: &str, run| {
        parts.push(Part { name: name.into(), about: about.into(), run });
    };
    add("docs", "the examples in the documentation, README.md included", cargo::doc_tests);
    add("examples", "the programs of examples/, from start to end", programs::examples);
    add("python", "the Python package: tests, stubs, types", languages::python);
    add("node", "the npm package: tests, types", languages::node);
    add(
        "c",
        "the C library: its tests in C and C++, with sanitizers and valgrind, installed, and its examples",
        c::run,
    );
    add("kotlin", "the Kotlin package: tests, examples", languages::kotlin);
    add("swift", "the Swift package: tests, examples", swift::swift);
    add("conformance", "the same scenarios in every language, and the table of them", conformance::run);
    add("disk-full", "outbox and hub on a disk without space", cargo::disk_full);
    add("kill", "devices and hubs killed by the hundred", cargo::kill);
    add(
        "peers",
        "public clients against the hub: paho, mosquitto_pub, and those of Azure for Python and Node",
        peers::run,
    );
    add("demo", "the demo, shortened", programs::demo);
    parts
}

/// How long one program of a part may take: far more than it should, so that only a hang meets it.
const LIMIT: Duration = Duration::from_secs(15 * 60);
