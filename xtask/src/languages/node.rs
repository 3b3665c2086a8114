//! The npm package.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    needs,
    shell::{self, say},
};

/// node and npm, with what the package is developed with.
pub(crate) struct Node {
    node: PathBuf,
    npm: PathBuf,
}

impl Node {
    /// Makes it ready, with the package as it stands, built without optimisation; the same one for the rest of this run.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub(crate) fn with_whimbrel() -> Result<&'static Self, String> {
        static READY: OnceLock<Result<Node, String>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            let node = Self::ready()?;
            node.build("dev").map_err(|error| error.to_string())?;
            Ok(node)
        });
        ready.as_ref().map_err(Clone::clone)
    }

    /// The program node.
    pub(crate) fn program(&self) -> &Path {
        &self.node
    }

    /// Makes it ready, with nothing built.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn ready() -> Result<Self, String> {
        let node = Self { node: needs::program("node", "nodejs")?, npm: needs::program("npm", "npm")? };
        say("installing what the npm package is developed with");
        let install = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
        let otherwise = "npm could not install what bindings-node/package.json wants";
        shell::done(&mut node.npm(&install), otherwise).map_err(|error| error.to_string())?;
        Ok(node)
    }

    /// Builds both halves of the package where they are, with a profile of the workspace.
    pub(crate) fn build(&self, profile: &str) -> io::Result<()> {
        say("building the npm package");
        let mut build = self.run(&["scripts/build.mjs", "--profile", profile]);
        shell::done(&mut build, "the npm package does not build")
    }

    /// `node ARGUMENTS`, in the folder of the binding.
    pub(crate) fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.node);
        command.args(arguments).current_dir(folder());
        command
    }

    /// `npm ARGUMENTS`, in the folder of the binding.
    pub(crate) fn npm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.npm);
        command.args(arguments).current_dir(folder());
        command
    }
}

/// The folder of the binding.
pub(crate) fn folder() -> PathBuf {
    super::folder("bindings-node")
}
