//! `cargo xtask bench`: the programs of `bench/`, built for release.

use std::io;

use clap::Args;

use crate::{
    shell::{self, say},
    workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Smaller amounts: to see that it runs, not to compare.
    #[arg(long)]
    quick: bool,
    /// Goes to the benchmark program as it is; without it, everything runs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> io::Result<bool> {
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
