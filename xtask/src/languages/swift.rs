//! The Swift package.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use crate::{
    languages::uniffi::Native,
    needs,
    shell::{self, Finished, say},
    workspace,
};

/// A Swift, and the native half of the package.
pub(crate) struct Swift {
    swift: needs::Swift,
    /// The folder with the static library.
    library: PathBuf,
    release: bool,
}

impl Swift {
    /// Makes it ready, with the native half as it stands, built without optimisation; the same one for the rest of this run.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(crate) fn with_whimbrel() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<Swift, String>> = OnceLock::new();
        READY.get_or_init(|| Self::ready(Native::debug()?, false)).as_ref().map_err(Clone::clone)
    }

    /// Makes it ready with this native half.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn ready(native: &Native, release: bool) -> Result<Self, String> {
        let swift = needs::Swift::get()?;
        let library =
            published(&native.archive).map_err(|error| format!("{}: {error}", native.archive.display()))?;
        Ok(Self { swift, library, release })
    }

    /// Builds everything in Swift, or what `arguments` say, and gives the folder with the programs.
    ///
    /// # Errors
    /// That it does not build without warnings, with what the compiler said.
    pub(crate) fn build(&self, arguments: &[&str]) -> Result<PathBuf, String> {
        say("building the Swift package (the first time takes minutes)");
        let mut build = self.package("build");
        let finished =
            shell::watch(build.args(arguments), LIMIT, |_| ()).map_err(|error| error.to_string())?;
        if !finished.success() {
            return Err(format!(
                "the Swift package does not build: {}\n{}",
                finished.ending(),
                finished.tail(60)
            ));
        }
        if let Some(warning) = finished.lines.iter().find(|line| line.contains("warning:")) {
            return Err(format!("the Swift package builds with warnings: {warning}"));
        }
        let mut ask = self.package("build");
        let (good, text) = shell::output(ask.arg("--show-bin-path")).map_err(|error| error.to_string())?;
        match text.lines().last() {
            Some(line) if good => Ok(PathBuf::from(line)),
            _ => Err("swift build does not say where it builds".to_owned()),
        }
    }

    /// Runs the tests that were built, in `built`.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(crate) fn test(&self, built: &Path, environment: &[(&str, &Path)]) -> io::Result<Finished> {
        let program = built.join("WhimbrelPackageTests.xctest");
        // On Linux it is a program. `swift test` runs it, too, but hangs when it writes much to its standard error.
        let mut test = if program.is_file() { self.program(&program) } else { self.package("test") };
        shell::watch(test.envs(environment.iter().copied()), LIMIT, |_| ())
    }

    /// A program that was built, where it runs.
    pub(crate) fn program(&self, program: &Path) -> Command {
        self.swift.command(program)
    }

    /// What a program is put behind to run.
    pub(crate) fn entry(&self) -> &[OsString] {
        self.swift.entry()
    }

    /// The same as the words of a command.
    pub(crate) fn words(&self, program: &Path) -> Vec<OsString> {
        self.swift.words(program)
    }

    fn package(&self, verb: &str) -> Command {
        let mut swift = self.swift.command("swift");
        swift.args([verb, "--scratch-path"]).arg(cache().join("build"));
        swift.args(["--configuration", if self.release { "release" } else { "debug" }]);
        swift.arg("-Xlinker").arg(format!("-L{}", self.library.display()));
        swift.current_dir(workspace::root());
        swift
    }
}

/// The folder of the binding.
pub(crate) fn folder() -> PathBuf {
    super::folder("bindings-uniffi").join("swift")
}

/// The folder of the examples.
pub(crate) fn examples() -> PathBuf {
    workspace::root().join("examples").join("swift")
}

/// Where things of this package are kept between runs.
pub(crate) fn cache() -> PathBuf {
    needs::cache().join("swift")
}

/// A folder with nothing but this library, for the linker takes a shared one where there are both. It has another name for each
/// state of the library: what swift builds does not know that it is made of it, and would not be linked again.
fn published(library: &Path) -> io::Result<PathBuf> {
    let about = fs::metadata(library)?;
    let changed = about.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = library.file_name().unwrap_or_default();
    let all = cache().join("library");
    let folder = all.join(format!("{}-{}", changed.as_millis(), about.len()));
    if folder.join(name).is_file() {
        return Ok(folder);
    }
    // Those of earlier states are of no use to anybody.
    let _ = fs::remove_dir_all(&all);
    fs::create_dir_all(&folder)?;
    // A copy: a build meanwhile must not change it.
    fs::copy(library, folder.join(name))?;
    Ok(folder)
}

/// How long a build or all tests may take: far more than they should.
const LIMIT: Duration = Duration::from_secs(30 * 60);
