//! The Python package.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    needs,
    shell::{self, say},
};

/// A Python with the tools the package is developed with, and the package itself.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Makes or finds one, with the package as it stands, built without optimisation; the same one for the rest of this run.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn with_whimbrel() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<Python, String>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            let program = needs::python("bindings", &folder().join("requirements-dev.txt"))?;
            let python = Self { program };
            python.install().map_err(|error| error.to_string())?;
            Ok(python)
        });
        ready.as_ref().map_err(Clone::clone)
    }

    /// The program itself.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The folder with the programs that its packages brought.
    fn scripts(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("."))
    }

    /// `python ARGUMENTS`, in the folder of the binding.
    pub(crate) fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.scripts().to_path_buf()).chain(std::env::split_paths(&path));
        // A separator in a folder's name: then the programs are found by their full names only.
        if let Ok(path) = std::env::join_paths(all) {
            command.env("PATH", path);
        }
        command.args(arguments).current_dir(folder()).env("PYTHONUNBUFFERED", "1");
        command
    }

    fn install(&self) -> io::Result<()> {
        say("building the Python package");
        let wheels = needs::cache().join("wheels");
        // What an earlier version left must not be taken for this one.
        let _ = fs::remove_dir_all(&wheels);
        build_wheel(&self.program, &folder(), "dev", &wheels)?;
        install_wheel(&self.program, &wheels).map(drop)
    }
}

/// Builds the wheel of the project in `project` with a profile of the workspace, and puts it into `out`. `python` has maturin.
pub(crate) fn build_wheel(python: &Path, project: &Path, profile: &str, out: &Path) -> io::Result<()> {
    let mut build = Command::new(python);
    build.args(["-m", "maturin", "build", "--locked", "--quiet", "--profile", profile, "--out"]);
    shell::done(build.arg(out).current_dir(project), "the wheel does not build")
}

/// Installs the one wheel in `folder`, in place of whatever version is there, and says which file it is.
pub(crate) fn install_wheel(python: &Path, folder: &Path) -> io::Result<PathBuf> {
    let files: Vec<_> = fs::read_dir(folder)?.flatten().map(|file| file.path()).collect();
    let [wheel] = files.as_slice() else {
        return Err(io::Error::other(format!("{} files are in {}", files.len(), folder.display())));
    };
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.args(["--no-deps", "--force-reinstall"]).arg(wheel);
    shell::done(&mut install, "pip could not install the wheel")?;
    Ok(wheel.clone())
}

/// The folder of the binding.
pub(crate) fn folder() -> PathBuf {
    super::folder("bindings-python")
}
