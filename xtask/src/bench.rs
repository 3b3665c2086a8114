//! `cargo xtask bench`: the programs of `bench/`, built for release.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;

use crate::{
    dist,
    languages::{
        c::C,
        kotlin::Kotlin,
        node::{self, Node},
        python::{self, build_wheel, install_wheel},
        swift::Swift,
        uniffi::Native,
    },
    needs,
    shell::{self, say},
    workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Smaller amounts: to see that it runs, not to compare.
    #[arg(long)]
    quick: bool,
    /// Goes to the benchmark program as it is; without it, everything in Rust runs. `languages` measures the other languages beside
    /// their peers (`languages --help`).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> io::Result<bool> {
    if let Some((first, arguments)) = options.arguments.split_first()
        && first == "languages"
    {
        return languages(options.quick, arguments);
    }
    say("building the benchmarks for release (the first time takes minutes)");
    let mut cargo = shell::cargo();
    cargo
        .args(["run", "--locked", "--release", "--package", "whimbrel-bench", "--"])
        .current_dir(workspace::root());
    if options.arguments.is_empty() {
        cargo.arg("all");
    }
    cargo.args(&options.arguments);
    if options.quick {
        cargo.arg("--quick");
    }
    shell::pass_through(&mut cargo)
}

/// `bench/languages/run.py`, with everything it needs built as it is handed out and installed outside the tree.
fn languages(quick: bool, arguments: &[String]) -> io::Result<bool> {
    let things = match Things::get() {
        Ok(things) => things,
        Err(why) => {
            say(format!("the languages cannot be measured: {why}"));
            return Ok(false);
        }
    };
    let mut driver = Command::new(&things.python);
    driver.arg(workspace::root().join("bench/languages/run.py")).current_dir(workspace::root());
    driver.arg("--server").arg(things.server).arg("--python").arg(&things.python);
    driver.arg("--python-paho").arg(things.python_paho).arg("--wheel").arg(things.wheel);
    driver.arg("--node").arg(things.node).arg("--modules").arg(things.modules).arg("--c").arg(things.c);
    driver.arg("--java").arg(things.java).arg("--classpath").arg(things.classpath);
    match things.swift {
        Ok((programs, entry)) => {
            driver.arg("--swift").arg(programs).arg("--swift-entry").arg(entry);
        }
        Err(why) => say(format!("Swift is left out: {why}")),
    }
    if quick {
        driver.arg("--quick");
    }
    shell::pass_through(driver.args(arguments))
}

struct Things {
    server: PathBuf,
    python: PathBuf,
    python_paho: PathBuf,
    wheel: PathBuf,
    node: PathBuf,
    modules: PathBuf,
    c: PathBuf,
    java: PathBuf,
    classpath: OsString,
    /// The folder with the programs, and what they are put behind to run; or why they are left out.
    swift: Result<(PathBuf, String), String>,
}

impl Things {
    fn get() -> Result<Self, String> {
        let here = workspace::root().join("bench/languages");
        let python = needs::python("bench", &here.join("python/requirements.txt"))?;
        let python_paho = needs::python("bench-paho", &here.join("python/requirements-paho.txt"))?;
        let (node, modules) = needs::node("bench", &here.join("node"))?;
        say("building what is measured (the first time takes many minutes)");
        let mut build = shell::cargo();
        build.args(["build", "--locked", "--release", "--package", "whimbrel-bench"]);
        shell::done(build.current_dir(workspace::root()), "the benchmarks do not build")
            .map_err(|error| error.to_string())?;
        let target = workspace::target().map_err(|error| error.to_string())?;
        let native = Native::build(&["--release"])?;
        let kotlin = Kotlin::build(&native, "kotlin-bench")?;
        Ok(Self {
            server: target.join("release").join(format!("whimbrel-bench{}", std::env::consts::EXE_SUFFIX)),
            wheel: wheel(&python, &target)?,
            modules: node_package(modules)?,
            c: c_programs()?,
            swift: swift(&native),
            python,
            python_paho,
            node,
            java: kotlin.java().to_path_buf(),
            classpath: kotlin.class_path("whimbrel-bench")?,
        })
    }
}

/// Builds the wheel and installs it beside its peers.
fn wheel(python: &Path, target: &Path) -> Result<PathBuf, String> {
    let folder = target.join("bench-wheel");
    // What an earlier build left would be found as well.
    let _ = fs::remove_dir_all(&folder);
    build_wheel(python, &python::folder(), dist::PROFILE, &folder)
        .and_then(|()| install_wheel(python, &folder))
        .map_err(|error| error.to_string())
}

/// Builds the npm package and puts it where the peers are.
fn node_package(modules: PathBuf) -> Result<PathBuf, String> {
    let package = node::folder();
    Node::ready()?.build(dist::PROFILE).map_err(|error| error.to_string())?;
    let link = modules.join("node_modules").join("whimbrel");
    // It may be there from another work tree.
    let _ = fs::remove_file(&link);
    #[cfg(unix)]
    std::os::unix::fs::symlink(&package, &link).map_err(|error| format!("{}: {error}", link.display()))?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(&package, &link)
        .map_err(|error| format!("{}: {error}", link.display()))?;
    Ok(modules)
}

/// Builds the programs in Swift.
fn swift(native: &Native) -> Result<(PathBuf, String), String> {
    let swift = Swift::ready(native, true)?;
    let mut programs = PathBuf::new();
    for name in ["send", "send-many", "calls"] {
        programs = swift.build(&["--product", &format!("whimbrel-bench-{name}")])?;
    }
    let quoted = |word: &OsString| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    Ok((programs, swift.entry().iter().map(quoted).collect::<Vec<_>>().join(" ")))
}

/// Compiles the programs in C, ours linked statically; the folder they are in.
fn c_programs() -> Result<PathBuf, String> {
    needs::program("gcc", "gcc")?;
    needs::header("MQTTAsync.h", "libpaho-mqtt-dev")?;
    let c = C::install("c-bench", "release", &[])?;
    let (source, programs) =
        (workspace::root().join("bench/languages/c"), needs::cache().join("c-bench").join("bin"));
    fs::create_dir_all(&programs).map_err(|error| error.to_string())?;
    for (name, file, flags) in [
        ("whimbrel_send", "whimbrel_send.c", [].as_slice()),
        ("whimbrel_send_many", "whimbrel_send_many.c", &[]),
        ("calls", "calls.c", &[]),
        ("paho_publish", "paho_publish.c", &["-lpaho-mqtt3a"]),
        ("paho_file_publish", "paho_publish.c", &["-DPERSISTENCE", "-lpaho-mqtt3a"]),
    ] {
        // For clocks, and for what the header of the peer has that the standard has not.
        let flags: Vec<&str> = ["-std=gnu11", "-Wno-pedantic"].iter().chain(flags).copied().collect();
        c.compile(&source.join(file), &programs.join(name), &flags)?;
    }
    Ok(programs)
}
