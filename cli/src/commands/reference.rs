//! `whimbrel reference`: parts of the documentation that are made from the code.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use whimbrel_hub::Config;

use crate::{failure::Result, output};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which part
    part: Part,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// The table of errors, docs/errors.md
    Errors,
    /// The settings of the hub, docs/hub.toml
    HubSettings,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let text = match arguments.part {
        Part::Errors => whimbrel::error_table_markdown(),
        Part::HubSettings => Config::example(),
    };
    output::line(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
