//! The native half of the Kotlin and Swift packages, and the program that writes the sources that go with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

use crate::{
    shell::{self, say},
    workspace,
};

/// A library of `bindings-uniffi` and its generator, of one build.
pub(crate) struct Native {
    /// The dynamic library.
    pub(crate) library: PathBuf,
    /// The static library.
    pub(crate) archive: PathBuf,
    generator: PathBuf,
}

impl Native {
    /// Builds them without optimisation; the same ones for the rest of this run.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(crate) fn debug() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<Native, String>> = OnceLock::new();
        READY.get_or_init(|| Self::build(&[])).as_ref().map_err(Clone::clone)
    }

    /// Builds them with these arguments of cargo, such as `--release`.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn build(arguments: &[&str]) -> Result<Self, String> {
        say("building the native half of the Kotlin and Swift packages");
        let mut cargo = shell::cargo();
        cargo.args(["build", "--locked", "--package", "whimbrel-uniffi", "--features", "bindgen"]);
        cargo.args(arguments).arg("--message-format=json-render-diagnostics").current_dir(workspace::root());
        let output = cargo.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err("bindings-uniffi does not build".into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let files: Vec<PathBuf> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| {
                message
                    .pointer("/target/name")
                    .is_some_and(|name| name == "whimbrel_uniffi" || name == "uniffi-bindgen")
            })
            .flat_map(|message| {
                message.get("filenames").and_then(Value::as_array).cloned().unwrap_or_default()
            })
            .filter_map(|file| file.as_str().map(PathBuf::from))
            .collect();
        let find = |what: &str, is_it: &dyn Fn(&Path) -> bool| {
            files.iter().find(|file| is_it(file)).cloned().ok_or_else(|| format!("cargo built no {what}"))
        };
        let ends = |endings: &'static [&'static str]| {
            move |file: &Path| file.extension().is_some_and(|end| endings.iter().any(|ending| end == *ending))
        };
        Ok(Self {
            library: find("dynamic library", &ends(&["so", "dylib", "dll"]))?,
            archive: find("static library", &ends(&["a", "lib"]))?,
            generator: find("generator", &|file| {
                file.file_stem().is_some_and(|name| name == "uniffi-bindgen")
            })?,
        })
    }

    /// Writes the sources of `language` (`kotlin` or `swift`) into `folder`, and nothing else stays in it.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn generate(&self, language: &str, folder: &Path) -> Result<(), String> {
        let _ = fs::remove_dir_all(folder);
        let mut generator = Command::new(&self.generator);
        generator.arg(language).arg(&self.library).arg(folder).current_dir(workspace::root());
        match shell::pass_through(&mut generator) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("the {language} sources could not be generated")),
            Err(error) => Err(error.to_string()),
        }
    }
}
