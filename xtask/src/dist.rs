//! `cargo xtask dist`: the packages as they are handed out, in `dist/`, and whether they are small enough.

use std::{
    env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX, OS},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    languages::{
        c::C,
        node::{self, Node},
        python::build_wheel,
    },
    needs,
    shell::{self, say},
    workspace,
};

/// The profile of the workspace that they are built with.
pub(crate) const PROFILE: &str = "dist";
/// Largest package with a client, packed.
const CLIENT_LIMIT: u64 = 4 << 20;
/// Largest hub: the program itself, and each package with it.
const HUB_LIMIT: u64 = 15 << 20;
/// The native half of the npm package, as `scripts/build.mjs` leaves it.
const LIBRARY: &str = "whimbrel.node";
/// Largest C library, stripped: with TLS, and without.
const C_LIMIT: u64 = 1_400_000;
const C_BARE_LIMIT: u64 = 500_000;

/// Builds all packages for this platform. Whether each is within its limit.
pub(crate) fn run() -> io::Result<bool> {
    let platform = Platform::here()?;
    let dist = workspace::root().join("dist");
    empty(&dist)?;
    wheels(&dist)?;
    npm_packages(&dist, &platform)?;
    let mut files = c_library(&dist, &platform)?;

    for entry in fs::read_dir(&dist)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
        }
    }
    files.push((format!("whimbrel{EXE_SUFFIX} (the program of the hub)"), fs::metadata(program()?)?.len()));
    files.sort();
    Ok(print(&files))
}

/// The table; whether nothing in it is over its limit.
fn print(files: &[(String, u64)]) -> bool {
    let mut good = true;
    println!("\n{:<64} {:>10}  {:>7}", "package", "bytes", "MiB");
    for (name, size) in files {
        let limit = match name {
            name if name.contains("hub") => HUB_LIMIT,
            name if name == C_BARE => C_BARE_LIMIT,
            name if name == C_FULL => C_LIMIT,
            _ => CLIENT_LIMIT,
        };
        let over = *size > limit;
        good &= !over;
        let verdict = if over { format!("  over the limit of {}", mib(limit)) } else { String::new() };
        println!("{name:<64} {size:>10}  {:>7}{verdict}", mib(*size));
    }
    good
}

/// The C library as it is installed, and what its shared form weighs with TLS and without.
fn c_library(dist: &Path, platform: &Platform) -> io::Result<Vec<(String, u64)>> {
    let version = env!("CARGO_PKG_VERSION");
    let mut weights = Vec::new();
    for (name, features) in [(C_BARE, ["--no-default-features"].as_slice()), (C_FULL, &[])] {
        let c = C::install("c-dist", "small", features).map_err(io::Error::other)?;
        let shared = c.libraries().join(format!("{DLL_PREFIX}whimbrel{DLL_SUFFIX}"));
        weights.push((name.to_owned(), fs::metadata(shared)?.len()));
        if name == C_FULL {
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(c.prefix()).arg("-czf");
            tar.arg(dist.join(format!("whimbrel-c-{version}-{}.tar.gz", platform.name))).arg(".");
            shell::done(&mut tar, "the C library cannot be packed")?;
        }
    }
    Ok(weights)
}

const C_BARE: &str = "libwhimbrel without TLS";
const C_FULL: &str = "libwhimbrel with TLS";

fn mib(bytes: u64) -> String {
    let hundredths = bytes.saturating_mul(100) >> 20;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn wheels(dist: &Path) -> io::Result<()> {
    let bindings = workspace::root().join("bindings-python");
    let python =
        needs::python("bindings", &bindings.join("requirements-dev.txt")).map_err(io::Error::other)?;
    for folder in [bindings.join("hub"), bindings] {
        say(format!("building the wheel of {}", folder.display()));
        build_wheel(&python, &folder, PROFILE, dist)?;
    }
    Ok(())
}

fn npm_packages(dist: &Path, platform: &Platform) -> io::Result<()> {
    let client = node::folder();
    let hub = client.join("hub");
    let node = Node::ready().map_err(io::Error::other)?;
    node.build(PROFILE)?;

    let library = client.join(LIBRARY);
    let program = program()?;
    let program_name = format!("whimbrel{EXE_SUFFIX}");
    for (folder, native, prefix, file) in
        [(&client, &library, "", LIBRARY), (&hub, &program, "hub-", program_name.as_str())]
    {
        let text = fs::read_to_string(folder.join("package.json"))?;
        let mut package: Value = serde_json::from_str(&text)?;
        let name = format!("@whimbrel/{prefix}{}", platform.name);
        let stage = dist.join("stage");

        // The half for this platform.
        empty(&stage)?;
        fs::copy(native, stage.join(file))?;
        pack(&node, &stage, dist, platform.package(&name, file, &package))?;

        // And the one for all, which asks for it.
        empty(&stage)?;
        for part in package.get("files").and_then(Value::as_array).into_iter().flatten() {
            let part = part.as_str().unwrap_or_default();
            copy(&folder.join(part), &stage.join(part))?;
        }
        let version = package.get("version").cloned().unwrap_or_default();
        if let Some(package) = package.as_object_mut() {
            package.insert("optionalDependencies".to_owned(), json!({ name: version }));
            package.remove("devDependencies");
            package.remove("scripts");
        }
        pack(&node, &stage, dist, package)?;
        fs::remove_dir_all(&stage)?;
    }
    Ok(())
}

/// Packs what is in `stage`, with this `package.json` and the licences.
fn pack(node: &Node, stage: &Path, dist: &Path, mut package: Value) -> io::Result<()> {
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(workspace::root().join(licence), stage.join(licence))?;
        if let Some(files) = package.get_mut("files").and_then(Value::as_array_mut) {
            files.push(licence.into());
        }
    }
    fs::write(stage.join("package.json"), serde_json::to_string_pretty(&package)? + "\n")?;
    let mut command = node.npm(&["pack", "--silent", "--pack-destination"]);
    shell::done(command.arg(dist).current_dir(stage), "npm could not pack")
}

/// A platform as npm and its packages name it.
struct Platform {
    name: String,
    os: &'static str,
    cpu: &'static str,
    libc: Option<&'static str>,
}

impl Platform {
    fn here() -> io::Result<Self> {
        let cpu = match ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            _ => return Err(io::Error::other(format!("there are no npm packages for {OS} on {ARCH}"))),
        };
        let (os, rest, libc) = match OS {
            "linux" if cfg!(target_env = "musl") => ("linux", "-musl", Some("musl")),
            "linux" => ("linux", "-gnu", Some("glibc")),
            "macos" => ("darwin", "", None),
            "windows" => ("win32", "-msvc", None),
            _ => return Err(io::Error::other(format!("there are no npm packages for {OS}"))),
        };
        Ok(Self { name: format!("{os}-{cpu}{rest}"), os, cpu, libc })
    }

    /// The `package.json` of the package for this platform, with one file.
    fn package(&self, name: &str, file: &str, whole: &Value) -> Value {
        let of = |field: &str| whole.get(field).cloned().unwrap_or_default();
        let mut package = json!({
            "name": name,
            "version": of("version"),
            "description": format!("The part of {} for {}", of("name").as_str().unwrap_or_default(), self.name),
            "license": of("license"),
            "engines": of("engines"),
            "os": [self.os],
            "cpu": [self.cpu],
            "files": [file],
        });
        if let Some(package) = package.as_object_mut() {
            if let Some(libc) = self.libc {
                package.insert("libc".to_owned(), json!([libc]));
            }
            if Path::new(file).extension().is_some_and(|extension| extension == "node") {
                package.insert("main".to_owned(), file.into());
            }
        }
        package
    }
}

/// The command, as the wheel brings it.
fn program() -> io::Result<PathBuf> {
    Ok(workspace::target()?.join(PROFILE).join(format!("whimbrel{EXE_SUFFIX}")))
}

fn empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to)
            .map(drop)
            .map_err(|error| io::Error::other(format!("{}: {error}", from.display())));
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
