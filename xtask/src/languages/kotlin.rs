//! The Kotlin package, and the programs that are made with it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::uniffi::Native;
use crate::{
    needs,
    shell::{self, say},
};

/// Java and Maven, with the package and everything of its pom.xml built outside the tree.
pub(crate) struct Kotlin {
    java: PathBuf,
    maven: PathBuf,
    folder: PathBuf,
}

impl Kotlin {
    /// Makes it ready, with the package as it stands, built without optimisation; the same one for the rest of this run.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(crate) fn with_whimbrel() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<Kotlin, String>> = OnceLock::new();
        let ready = READY.get_or_init(|| Self::build(Native::debug()?, "kotlin"));
        ready.as_ref().map_err(Clone::clone)
    }

    /// Builds it around `native`, in the folder `name` of the cache.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn build(native: &Native, name: &str) -> Result<Self, String> {
        let maven = needs::program("mvn", "maven")?;
        let java = needs::program("java", "default-jre-headless")?;
        let kotlin = Self { java, maven, folder: needs::cache().join(name) };
        native.generate("kotlin", &kotlin.folder.join("generated"))?;
        let natives = kotlin.folder.join("natives");
        let place = natives.join(platform()?);
        let file = native.library.file_name().ok_or("the library has no name")?;
        fs::create_dir_all(&place)
            .and_then(|()| fs::copy(&native.library, place.join(file)))
            .map_err(|error| format!("{}: {error}", place.display()))?;
        say("building the Kotlin package and what is made with it (the first time Maven fetches a lot)");
        match shell::pass_through(&mut kotlin.maven(&["--quiet", "package", "-DskipTests"])) {
            Ok(true) => Ok(kotlin),
            Ok(false) => Err("the Kotlin package does not build".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `mvn ARGUMENTS`, in the folder of the package.
    pub(crate) fn maven(&self, arguments: &[&str]) -> Command {
        let define = |name: &str, folder: &Path| {
            let mut argument = OsString::from(format!("-Dwhimbrel.{name}="));
            argument.push(folder);
            argument
        };
        let mut command = Command::new(&self.maven);
        command
            .args(["--batch-mode", "--no-transfer-progress"])
            .current_dir(super::folder("bindings-uniffi").join("kotlin"));
        command.arg(define("build", &self.folder.join("build")));
        command.arg(define("generated", &self.folder.join("generated")));
        command.arg(define("natives", &self.folder.join("natives")));
        command.args(arguments);
        command
    }

    /// The command line of a program: `class` of the module `module`. It starts quickly rather than run fast.
    ///
    /// # Errors
    /// When Maven left no list of what the module needs.
    pub(crate) fn program(&self, module: &str, class: &str) -> Result<Vec<OsString>, String> {
        let path = self.class_path(module)?;
        let quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp"];
        let mut words = vec![self.java.clone().into_os_string()];
        words.extend(quick.map(OsString::from));
        words.extend([path, class.into()]);
        Ok(words)
    }

    /// The class path of a module and what it needs.
    ///
    /// # Errors
    /// As [`Self::program`].
    pub(crate) fn class_path(&self, module: &str) -> Result<OsString, String> {
        let build = self.folder.join("build").join(module);
        let list = build.join("classpath.txt");
        let needed = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        let mut path = build.join("classes").into_os_string();
        path.push(if cfg!(windows) { ";" } else { ":" });
        path.push(needed.trim());
        Ok(path)
    }

    /// The program java.
    pub(crate) fn java(&self) -> &Path {
        &self.java
    }
}

/// The folder in which JNA looks for the library of this platform.
fn platform() -> Result<String, String> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        "windows" => "win32",
        other => other,
    };
    match std::env::consts::ARCH {
        "x86_64" => Ok(format!("{system}-x86-64")),
        "aarch64" => Ok(format!("{system}-aarch64")),
        other => Err(format!("the Kotlin package has no name for the architecture {other}")),
    }
}
