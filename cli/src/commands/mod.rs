//! One module for each subcommand.

pub(crate) mod command;
pub(crate) mod device;
pub(crate) mod feedback;
pub(crate) mod hub;
pub(crate) mod monitor;
pub(crate) mod receive;
pub(crate) mod reference;
pub(crate) mod send;

use std::{io::Read, path::Path, time::Duration};

use clap::Args;

use crate::failure::{Failure, Result};

/// What is said about each body that is sent.
#[derive(Args)]
struct Labels {
    /// Set an application property
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Content type of the bodies, such as application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Character set of the bodies, such as utf-8
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
}

/// A file, as far as a message of at most `limit` bytes may go and one byte more, so that a larger one is refused as such.
fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let unreadable = |error| Failure::new(format!("{} cannot be read", path.display())).caused_by(error);
    let mut body = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limit as u64 + 1).read_to_end(&mut body).map_err(unreadable)?;
    Ok(body)
}

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
