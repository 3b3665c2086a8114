//! Everything that is done to this project rather than by it: `cargo xtask test`, `check`, `gen`, `bench`, `dist`.

mod bench;
mod check;
mod dependencies;
mod dist;
mod generate;
mod languages;
mod needs;
mod shell;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Test, check, generate and measure this project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the tests, installing what they need where that is possible.
    Test(test::Options),
    /// Format, lints, documentation, dependencies, generated files.
    Check,
    /// Writes the generated files.
    Gen {
        /// Writes nothing; fails when a file is not current.
        #[arg(long)]
        check: bool,
    },
    /// Runs the benchmarks (release build).
    Bench(bench::Options),
    /// Builds the wheels and npm packages for this platform into dist/, and fails when one is too large.
    Dist,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Check => check::run(),
        Task::Gen { check } => generate::run(check),
        Task::Bench(options) => bench::run(&options),
        Task::Dist => dist::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("cargo xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
