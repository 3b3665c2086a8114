//! `cargo xtask gen`: the files that are made from the code, committed, and checked to be current.

use std::{fs, io, process::Command};

use crate::{
    languages::{self, node::Node, uniffi::Native},
    needs,
    shell::{self, say},
    workspace,
};

/// Each generated file, and the arguments of the command line that print it.
const FILES: &[(&str, &[&str])] =
    &[("docs/errors.md", &["reference", "errors"]), ("docs/hub.toml", &["reference", "hub-settings"])];

/// Writes every file that is not current, or with `check` only says so. Whether all of them are current now.
pub(crate) fn run(check: bool) -> io::Result<bool> {
    let program =
        crate::test::whimbrel()?.ok_or_else(|| io::Error::other("the command line does not build"))?;
    let mut current = true;
    for (file, arguments) in FILES {
        let (good, text) = shell::output(Command::new(&program).args(*arguments))?;
        if !good || text.is_empty() {
            return Err(io::Error::other(format!(
                "whimbrel {} printed nothing to write",
                arguments.join(" ")
            )));
        }
        let path = workspace::root().join(file);
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        if check {
            println!("{file} is not current; run: cargo xtask gen");
            current = false;
        } else {
            say(format!("writing {file}"));
            fs::write(&path, text)?;
        }
    }
    Ok(current & declarations(check)? & swift(check)?)
}

/// What the generator makes of the native half for Swift: committed, for a package that is fetched from a repository is what is in it.
fn swift(check: bool) -> io::Result<bool> {
    let made = needs::cache().join("swift").join("generated");
    Native::debug().and_then(|native| native.generate("swift", &made)).map_err(io::Error::other)?;
    let sources = languages::swift::folder().join("Sources");
    let mut current = true;
    for (name, folder) in
        [("WhimbrelNative.swift", "WhimbrelNative"), ("WhimbrelNativeFFI.h", "WhimbrelNativeFFI")]
    {
        let text = fs::read_to_string(made.join(name))?;
        let file = sources.join(folder).join(name);
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            continue;
        }
        if check {
            println!("{} is not current; run: cargo xtask gen", file.display());
            current = false;
        } else {
            say(format!("writing {}", file.display()));
            fs::write(&file, text)?;
        }
    }
    Ok(current)
}

/// The declarations of the npm package, which are made with it.
fn declarations(check: bool) -> io::Result<bool> {
    let node = Node::ready().map_err(io::Error::other)?;
    let mut build = node.run(&["scripts/build.mjs"]);
    if check {
        build.arg("--check");
    }
    shell::pass_through(&mut build)
}
