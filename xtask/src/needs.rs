//! Gets what tests need onto this machine, outside the tree: a Python environment, npm packages, Debian packages.

mod swift;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) use swift::Swift;

use crate::shell::{self, say};

/// Where things that take long to make are kept between runs. Nothing depends on it being there.
pub(crate) fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("whimbrel")
}

/// A Python with the packages of `requirements` installed, in the cache.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn python(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let wanted =
        fs::read_to_string(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let Some(python) = shell::find("python3") else {
        return Err("python3 is not installed".into());
    };
    let folder = cache().join(format!("python-{name}"));
    let (program, stamp) = (folder.join("bin").join("python"), folder.join("installed.txt"));
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    say(format!("making a Python environment in {}", folder.display()));
    let make = || shell::pass_through(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&folder));
    let mut made = make().map_err(|error| error.to_string())?;
    if !made && debian_package("python3-venv").is_ok() {
        made = make().map_err(|error| error.to_string())?;
    }
    if !made {
        return Err("python3 -m venv failed (on Debian it needs the package python3-venv)".into());
    }
    let packages = wanted.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    say(format!("installing {} from PyPI", packages.collect::<Vec<_>>().join(", ")));
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    if !shell::pass_through(&mut pip).map_err(|error| error.to_string())? {
        return Err(format!("pip could not install {}", requirements.display()));
    }
    fs::write(&stamp, &wanted).map_err(|error| error.to_string())?;
    Ok(program)
}

/// A folder with `node_modules` as `package.json` and `package-lock.json` in `folder` want them, in the cache, and the node that
/// is to run with it.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn node(name: &str, folder: &Path) -> Result<(PathBuf, PathBuf), String> {
    let node = program("node", "nodejs")?;
    let npm = program("npm", "npm")?;
    let place = cache().join(format!("node-{name}"));
    let stamp = place.join("installed.json");
    let mut wanted = String::new();
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    for file in ["package.json", "package-lock.json"] {
        let from = folder.join(file);
        let text = fs::read_to_string(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        fs::write(place.join(file), &text).map_err(|error| error.to_string())?;
        wanted.push_str(&text);
    }
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok((node, place));
    }
    say(format!("installing npm packages in {}", place.display()));
    let mut install = Command::new(npm);
    install
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"])
        .current_dir(&place);
    if !shell::pass_through(&mut install).map_err(|error| error.to_string())? {
        return Err(format!("npm could not install what {} wants", folder.join("package.json").display()));
    }
    fs::write(&stamp, &wanted).map_err(|error| error.to_string())?;
    Ok((node, place))
}

/// `program`, after installing the Debian package it is in, if need be.
///
/// # Errors
/// Why it is not there, for people.
pub(crate) fn program(program: &str, package: &str) -> Result<PathBuf, String> {
    if let Some(found) = shell::find(program) {
        return Ok(found);
    }
    debian_package(package).map_err(|why| format!("{program} is not installed, and {why}"))?;
    shell::find(program).ok_or_else(|| format!("the package {package} brought no {program}"))
}

/// A program of crates.io in this version, in the cache; built without optimisation, for it is built to be run once or twice.
///
/// # Errors
/// Why it is not there, for people.
pub(crate) fn cargo_program(name: &str, version: &str) -> Result<PathBuf, String> {
    let folder = cache().join(format!("cargo-{name}-{version}"));
    let program = folder.join("bin").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if program.is_file() {
        return Ok(program);
    }
    say(format!("installing {name} {version} from crates.io (takes minutes)"));
    let mut install = shell::cargo();
    install.args(["install", "--quiet", "--locked", "--debug", "--root"]).arg(&folder);
    install.arg(format!("{name}@{version}"));
    // Its own target folder: that of the workspace would be full of what only it needs.
    install.env_remove("CARGO_TARGET_DIR").current_dir(std::env::temp_dir());
    match shell::pass_through(&mut install) {
        Ok(true) => Ok(program),
        Ok(false) => Err(format!("cargo could not install {name} {version}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A header, after installing the Debian package it is in, if need be.
///
/// # Errors
/// Why it is not there, for people.
pub(crate) fn header(header: &str, package: &str) -> Result<(), String> {
    let is_there = || {
        let mut probe = Command::new("gcc");
        probe.args(["-E", "-include", header, "-x", "c", "/dev/null"]);
        probe.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    if is_there() {
        return Ok(());
    }
    debian_package(package).map_err(|why| format!("{header} is not installed, and {why}"))?;
    if is_there() { Ok(()) } else { Err(format!("the package {package} brought no {header}")) }
}

fn debian_package(package: &str) -> Result<(), String> {
    let Some(apt) = shell::find("apt-get") else {
        return Err(format!("there is no apt-get to install {package} with"));
    };
    if !is_root() {
        return Err(format!("only root can install it (apt-get install {package})"));
    }
    say(format!("installing the Debian package {package}"));
    let install = || {
        let mut apt = Command::new(&apt);
        apt.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
        run_apt(&mut apt)
    };
    // A fresh machine has no package lists; an up-to-date one needs no new ones.
    let installed = install().and_then(|good| {
        if good {
            return Ok(true);
        }
        run_apt(Command::new(&apt).args(["update", "--quiet"]))?;
        install()
    });
    match installed {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("apt-get could not install {package}")),
        Err(error) => Err(error.to_string()),
    }
}

fn run_apt(apt: &mut Command) -> io::Result<bool> {
    let finished = shell::watch(
        apt.env("DEBIAN_FRONTEND", "noninteractive"),
        std::time::Duration::from_secs(600),
        |_| (),
    )?;
    if !finished.success() {
        print!("{}", finished.tail(5));
    }
    Ok(finished.success())
}

pub(crate) fn is_root() -> bool {
    shell::output(Command::new("id").arg("-u")).is_ok_and(|(good, text)| good && text.trim() == "0")
}
