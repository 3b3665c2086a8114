//! Plays the scenarios in each language, and makes the table of the documentation.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand};
use futures_util::{StreamExt, stream};
use whimbrel_conformance::{
    actor::Language,
    play::{Failure, play},
    report::{Outcome, Report},
    scenario::Scenario,
    skips::{Skips, fits},
};

/// Plays the scenarios of `conformance/scenarios` in each language. The last line is `N passed, N failed, N skipped`.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Table>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Run {
    /// A language and the command of its actor, run by `sh`: 'Python=python3 actor.py'. Repeated for each language. Default:
    /// the Rust actor beside this program.
    #[arg(long, value_name = "NAME=COMMAND")]
    actor: Vec<String>,
    /// Plays these scenarios only; `error-*` is all that begin with `error-`. May be given again.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How many are played at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Writes the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long a step may wait, in seconds.
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Names the scenarios and plays none.
    #[arg(long)]
    list: bool,
    /// Folder with `scenarios` and `skip.toml`.
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_MANIFEST_DIR"), hide_default_value = true)]
    suite: PathBuf,
}

#[derive(Subcommand)]
enum Table {
    /// Makes the table scenario by language from the results of runs.
    Table {
        /// Fails unless this file is current.
        #[arg(long, value_name = "FILE", required_unless_present = "write", conflicts_with = "write")]
        check: Option<PathBuf>,
        /// Writes this file.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Folder with `scenarios`.
        #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_MANIFEST_DIR"), hide_default_value = true)]
        suite: PathBuf,
        /// Files that runs wrote with `--json`.
        #[arg(required = true)]
        results: Vec<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { command, run: options } = Options::parse();
    let ended = match command {
        Some(Table::Table { check, write, suite, results }) => table(check, write, &suite, &results),
        None => run(options).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Run) -> Result<bool, String> {
    let scenarios = Scenario::read_all(&options.suite.join("scenarios"))?;
    let skips = Skips::read(&options.suite.join("skip.toml"), &scenarios)?;
    if let Some(unknown) =
        options.only.iter().find(|only| scenarios.iter().all(|scenario| !fits(only, &scenario.name)))
    {
        return Err(format!("there is no scenario {unknown}; see --list"));
    }
    let chosen: Vec<&Scenario> = (scenarios.iter())
        .filter(|scenario| {
            options.only.is_empty() || options.only.iter().any(|only| fits(only, &scenario.name))
        })
        .collect();
    if options.list {
        chosen.iter().for_each(|scenario| println!("{:34} {}", scenario.name, scenario.title));
        return Ok(true);
    }
    let languages = languages(&options.actor)?;
    let limit = Duration::from_secs(options.limit);
    let mut report = Report {
        languages: languages.iter().map(|language| language.name.clone()).collect(),
        ..Report::default()
    };
    let plays =
        languages.iter().flat_map(|language| chosen.iter().map(move |scenario| (*scenario, language)));
    let skips = &skips;
    let mut ended = stream::iter(plays.map(|(scenario, language)| async move {
        if let Some(reason) = skips.reason(&scenario.name, &language.name) {
            return (
                scenario,
                language,
                Duration::ZERO,
                Outcome::Skipped { reason: reason.to_owned() },
                None,
            );
        }
        let started = Instant::now();
        let failure = play(scenario, language, limit).await.err();
        let outcome = match &failure {
            None => Outcome::Passed,
            Some(failure) => Outcome::Failed { step: failure.step, why: failure.why.clone() },
        };
        (scenario, language, started.elapsed(), outcome, failure)
    }))
    .buffer_unordered(options.jobs.max(1));
    while let Some((scenario, language, took, outcome, failure)) = ended.next().await {
        let word = match &outcome {
            Outcome::Passed => "ok",
            Outcome::Failed { .. } => "FAILED",
            Outcome::Skipped { .. } => "skipped",
        };
        println!("{word:8} {:14} {:34} {:>5} ms", language.name, scenario.name, took.as_millis());
        if let Some(failure) = failure {
            show(scenario, &failure);
        }
        report.add(&scenario.name, &language.name, outcome);
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let (passed, failed, skipped) = report.tally();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

fn show(scenario: &Scenario, failure: &Failure) {
    println!("         {}", scenario.title);
    match failure.step {
        Some(step) => println!("         step {step}: {}", failure.text),
        None => println!("         at {}", failure.text),
    }
    println!("         {}", failure.why);
    for line in failure.errors.lines() {
        println!("         | {line}");
    }
}

fn languages(actors: &[String]) -> Result<Vec<Language>, String> {
    if actors.is_empty() {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let actor = program.with_file_name(format!("conformance-actor{}", env::consts::EXE_SUFFIX));
        if !actor.exists() {
            return Err(format!("{} is not there: build the whole package", actor.display()));
        }
        return Ok(vec![Language { name: "Rust".into(), command: format!("'{}'", actor.display()) }]);
    }
    let language = |text: &String| {
        let (name, command) =
            text.split_once('=').filter(|(name, command)| !name.is_empty() && !command.is_empty())?;
        Some(Language { name: name.to_owned(), command: command.to_owned() })
    };
    actors
        .iter()
        .map(|text| language(text).ok_or_else(|| format!("{text}: an actor is NAME=COMMAND")))
        .collect()
}

fn table(
    check: Option<PathBuf>,
    write: Option<PathBuf>,
    suite: &Path,
    results: &[PathBuf],
) -> Result<bool, String> {
    let scenarios = Scenario::read_all(&suite.join("scenarios"))?;
    let mut report = Report::default();
    for path in results {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        report.merge(serde_json::from_str(&text).map_err(|error| failed(&error))?);
    }
    let table = report.table(&scenarios)?;
    if let Some(path) = write {
        fs::write(&path, &table).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = check {
        let there = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if there != table {
            return Err(format!("{} is not what these results make it; use --write", path.display()));
        }
    }
    Ok(true)
}
