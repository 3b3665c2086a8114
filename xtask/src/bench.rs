//! `cargo xtask bench`: the programs of `bench/`, built for release.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use serde_json::Value;

use crate::{
    languages::{kotlin::Kotlin, swift::Swift, uniffi::Native},
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

/// `bench/languages/run.py`, with everything it needs built for release and installed outside the tree.
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
    driver.arg("--node").arg(things.node).arg("--modules").arg(things.modules);
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
        say("building what is measured for release (the first time takes minutes)");
        let mut build = shell::cargo();
        build.args(["build", "--locked", "--release", "--package", "whimbrel-bench"]);
        succeed(build.current_dir(workspace::root()))?;
        let target = target_folder()?;
        let native = Native::build(&["--release"])?;
        let kotlin = Kotlin::build(&native, "kotlin-bench")?;
        Ok(Self {
            server: target.join("release").join(format!("whimbrel-bench{}", std::env::consts::EXE_SUFFIX)),
            wheel: wheel(&python, &target)?,
            modules: node_package(modules)?,
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
    let mut build = Command::new(python);
    build.args(["-m", "maturin", "build", "--release", "--locked", "--quiet", "--out"]).arg(&folder);
    succeed(build.current_dir(workspace::root().join("bindings-python")))?;
    let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let wheel =
        files.flatten().map(|file| file.path()).find(|file| file.extension().is_some_and(|end| end == "whl"));
    let wheel = wheel.ok_or("maturin made no wheel")?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--force-reinstall",
    ]);
    succeed(pip.arg(&wheel))?;
    Ok(wheel)
}

/// Builds the npm package and puts it where the peers are.
fn node_package(modules: PathBuf) -> Result<PathBuf, String> {
    let package = workspace::root().join("bindings-node");
    let npm = needs::program("npm", "npm")?;
    succeed(
        Command::new(&npm).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&package),
    )?;
    succeed(Command::new(&npm).args(["run", "--silent", "build"]).current_dir(&package))?;
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

fn target_folder() -> Result<PathBuf, String> {
    let mut metadata = shell::cargo();
    metadata
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(workspace::root());
    let (_, text) = shell::output(&mut metadata).map_err(|error| error.to_string())?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let folder = metadata.get("target_directory").and_then(Value::as_str);
    folder.map(PathBuf::from).ok_or_else(|| "cargo metadata tells no target folder".to_owned())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    match shell::pass_through(command) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{} failed", command.get_program().to_string_lossy())),
        Err(error) => Err(error.to_string()),
    }
}
