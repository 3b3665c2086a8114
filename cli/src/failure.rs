//! How a command fails: one line, what to do about it, an exit code.

use std::{fmt, io, process::ExitCode};

use whimbrel::{Error, ErrorKind};

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Exit code: not everything was delivered.
pub(crate) const UNDELIVERED: u8 = 3;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    advice: Option<String>,
    code: u8,
    /// Nobody reads our output any more: end without a word.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), advice: None, code: FAILED, silent: false }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(text) }
    }

    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, ..Self::new(text) }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { code: REFUSED, ..Self::new(text) }
    }

    pub(crate) fn undelivered(text: impl Into<String>) -> Self {
        Self { code: UNDELIVERED, ..Self::new(text) }
    }

    /// What to do.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(crate) fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.text = format!("{}: {cause}", self.text);
        self
    }

    /// Whether trying again later can help.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.code == UNREACHABLE
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.silent {
            eprintln!("error: {}", self.text);
            if let Some(advice) = &self.advice {
                eprintln!("  {advice}");
            }
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::PayloadTooLarge | ErrorKind::Unsupported => USAGE,
            ErrorKind::Unreachable => UNREACHABLE,
            ErrorKind::Unauthorized => REFUSED,
            _ => FAILED,
        };
        let text = error.to_string();
        // The name of the call is for programs.
        let text = text.strip_prefix(&format!("{}: ", error.operation())).unwrap_or(&text).to_owned();
        Self { code, ..Self::new(text) }
    }
}

/// Writing to the terminal or a pipe failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        Self { silent, ..Self::new("the output cannot be written").caused_by(error) }
    }
}
