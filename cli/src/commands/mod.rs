//! One module for each subcommand.

pub(crate) mod command;
pub(crate) mod device;
pub(crate) mod feedback;
pub(crate) mod hub;
pub(crate) mod monitor;
pub(crate) mod receive;
pub(crate) mod reference;
pub(crate) mod send;

use std::time::Duration;

/// Prints the completion script of a shell.
pub(crate) fn completions<C: clap::CommandFactory>(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut C::command(), "whimbrel", &mut std::io::stdout());
}

/// `30s`, `1h30m`, as in the settings of the hub.
fn duration(text: &str) -> Result<Duration, String> {
    whimbrel_hub::config::duration(text)
}

/// `room=attic`.
fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it like room=attic")?;
    Ok((name.to_owned(), value.to_owned()))
}
