//! The C library, laid out as it is installed.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    needs,
    shell::{self, say},
    workspace,
};

/// A folder with the library, its header, and what pkg-config and CMake find them by.
pub(crate) struct C {
    prefix: PathBuf,
}

impl C {
    /// Makes it ready as the tests want it: built without optimisation, with every transport and the test hooks; the same one for
    /// the rest of this run.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(crate) fn for_tests() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<C, String>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            needs::program("gcc", "gcc")?;
            needs::program("g++", "g++")?;
            Self::install("c", "dev", &["--features", "test-hooks,amqp,http"])
        });
        ready.as_ref().map_err(Clone::clone)
    }

    /// Builds the library in `profile` and lays it out in the cache, as `cargo cinstall` does.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn install(name: &str, profile: &str, features: &[&str]) -> Result<Self, String> {
        say(format!("building the C library ({profile})"));
        let version = env!("CARGO_PKG_VERSION");
        let short = version.rsplit_once('.').map_or(version, |(short, _)| short);
        let mut build = shell::cargo();
        build.args([
            "rustc",
            "--locked",
            "--quiet",
            "--package",
            "whimbrel-c",
            "--lib",
            "--crate-type",
            "cdylib,staticlib",
        ]);
        build.args(["--profile", profile]).args(features).current_dir(workspace::root());
        if cfg!(target_os = "linux") {
            build.args(["--", "-C"]).arg(format!("link-arg=-Wl,-soname,libwhimbrel.so.{short}"));
        }
        shell::done(&mut build, "the C library does not build").map_err(|error| error.to_string())?;
        let built = workspace::target().map_err(|error| error.to_string())?.join(if profile == "dev" {
            "debug"
        } else {
            profile
        });
        let prefix = needs::cache().join(name);
        // What an earlier version left must not be taken for this one.
        let _ = fs::remove_dir_all(&prefix);
        let library = Self { prefix };
        library
            .lay_out(&built, version, short)
            .map_err(|error| format!("{}: {error}", library.prefix.display()))?;
        Ok(library)
    }

    /// The folder it is installed in.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The folder with the libraries.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.prefix.join("lib")
    }

    /// Compiles a program of one file, linked to the static library.
    ///
    /// # Errors
    /// Why it does not compile, for people.
    pub(crate) fn compile(&self, source: &Path, program: &Path, flags: &[&str]) -> Result<(), String> {
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-o"])
            .arg(program);
        gcc.arg("-I")
            .arg(self.prefix.join("include"))
            .arg(source)
            .arg(self.libraries().join("libwhimbrel.a"));
        gcc.args(flags).args(["-ldl", "-lm"]);
        shell::done(&mut gcc, &format!("{} does not compile", source.display()))
            .map_err(|error| error.to_string())
    }

    fn lay_out(&self, built: &Path, version: &str, short: &str) -> io::Result<()> {
        let (libraries, include) = (self.libraries(), self.prefix.join("include"));
        let (pkg_config, cmake) = (libraries.join("pkgconfig"), libraries.join("cmake").join("whimbrel"));
        for folder in [&libraries, &include, &pkg_config, &cmake] {
            fs::create_dir_all(folder)?;
        }
        fs::copy(folder().join("include").join("whimbrel.h"), include.join("whimbrel.h"))?;
        for file in ["whimbrel-config.cmake", "whimbrel-config-version.cmake"] {
            fs::copy(folder().join("cmake").join(file), cmake.join(file))?;
        }
        fs::copy(built.join("libwhimbrel_c.a"), libraries.join("libwhimbrel.a"))?;
        let shared = built.join(format!("{DLL_PREFIX}whimbrel_c{DLL_SUFFIX}"));
        if cfg!(target_os = "linux") {
            let full = format!("libwhimbrel.so.{version}");
            fs::copy(shared, libraries.join(&full))?;
            #[cfg(unix)]
            for link in [format!("libwhimbrel.so.{short}"), "libwhimbrel.so".to_owned()] {
                std::os::unix::fs::symlink(&full, libraries.join(link))?;
            }
        } else {
            fs::copy(shared, libraries.join(format!("{DLL_PREFIX}whimbrel{DLL_SUFFIX}")))?;
        }
        let prefix = self.prefix.display();
        fs::write(
            pkg_config.join("whimbrel.pc"),
            format!(
                "prefix={prefix}\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\nName: whimbrel\n\
                 Description: Durable messaging between devices and a back end\nVersion: {version}\n\
                 Libs: -L${{libdir}} -lwhimbrel\nLibs.private: -lpthread -ldl -lm\nCflags: -I${{includedir}}\n"
            ),
        )
    }
}

/// The folder of the binding.
pub(crate) fn folder() -> PathBuf {
    super::folder("bindings-c")
}
