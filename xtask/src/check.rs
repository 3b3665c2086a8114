//! `cargo xtask check`: everything about the sources that can be judged without running them.

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    dependencies, generate,
    shell::{self, say},
    tally::{Table, Tally},
    workspace,
};

pub(crate) fn run() -> io::Result<bool> {
    let mut table = Table::default();
    let mut step =
        |name: &str, about: &str, judge: &mut dyn FnMut() -> io::Result<Tally>| -> io::Result<()> {
            say(format!("{name}: {about}"));
            let started = Instant::now();
            let tally = judge()?;
            table.add(name, started.elapsed(), tally);
            Ok(())
        };

    step("format", "cargo fmt --check", &mut || component("rustfmt", &["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    step("lints", "clippy, warnings denied", &mut || component("clippy", &clippy))?;
    let bare = ["check", "--locked", "--package", "whimbrel", "--no-default-features"];
    step("features", "the core without its default features", &mut || cargo(&bare, ""))?;
    let bare = ["check", "--locked", "--package", "whimbrel-c", "--no-default-features"];
    step("features of C", "the C library without its default features", &mut || cargo(&bare, ""))?;
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--all-features", "--document-private-items"];
    step("documentation", "cargo doc, warnings denied", &mut || cargo(&doc, "-D warnings"))?;
    step("dependencies", "licences and bans of deny.toml", &mut dependencies::check)?;
    if shell::find("cargo-deny").is_some() {
        let deny = ["deny", "--all-features", "check", "bans", "licenses", "sources"];
        step("cargo-deny", "the same once more, and where crates come from", &mut || cargo(&deny, ""))?;
    }
    step("generated files", "as cargo xtask gen would write them", &mut || generate::run(true).map(judged))?;

    Ok(table.print("check", false))
}

fn cargo(arguments: &[&str], doc_flags: &str) -> io::Result<Tally> {
    let mut cargo = shell::cargo();
    cargo.args(arguments).env("RUSTDOCFLAGS", doc_flags).current_dir(workspace::root());
    shell::pass_through(&mut cargo).map(judged)
}

/// A subcommand that comes with a component of the tool chain; its absence is a failure, and says what to do.
fn component(name: &str, arguments: &[&str]) -> io::Result<Tally> {
    let subcommand = arguments.first().copied().unwrap_or_default();
    let mut probe = Command::new(shell::cargo().get_program());
    probe.args([subcommand, "--version"]);
    if !shell::watch(&mut probe, Duration::from_secs(60), |_| ())?.success() {
        println!("{name} is not installed; run: rustup component add {name}");
        return Ok(Tally::fail());
    }
    cargo(arguments, "")
}

fn judged(good: bool) -> Tally {
    if good { Tally::pass() } else { Tally::fail() }
}
