//! The one error type of the core, and the one table of what can go wrong.
//!
//! Every language maps the rows of [`ErrorKind`]; none adds its own. `docs/errors.md` is generated from it.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in which operation, with which details, and caused by what.
///
/// `Display` is one line that says what was wrong and, where there is one, what to do. It never contains a payload,
/// a key or a token.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    details: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in `operation` (the public call, such as `"device.send"`), with one line for people.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            message: message.into(),
            details: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// Adds a named detail. Never a payload, key or token.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.details.push((name, value.to_string()));
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says how long the other side asked us to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same error as another call reports it.
    #[must_use]
    pub(crate) fn in_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = operation;
        self
    }

    /// The row of the table.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The call that failed, such as `"device.send"`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// One line for people, without the operation and the cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Named details, in the order they were added.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }

    /// How long the other side asked us to wait, where it did.
    pub fn wait_hint(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)?;
        for (index, (name, value)) in self.0.details.iter().enumerate() {
            let lead = if index == 0 { " (" } else { ", " };
            write!(f, "{lead}{name}: {value}")?;
        }
        if !self.0.details.is_empty() {
            f.write_str(")")?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("details", &self.0.details)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Whether repeating the call can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call fails again.
    Never,
    /// The same call may succeed later.
    Later,
    /// Wait again: the operation itself is still going on.
    WaitAgain,
    /// After closing and opening the outbox again.
    AfterReopen,
    /// The caller decided to stop; the caller decides whether to start again.
    CallersChoice,
}

impl Retry {
    /// The word used in documents and in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::WaitAgain => "wait again",
            Self::AfterReopen => "after reopen",
            Self::CallersChoice => "caller's choice",
        }
    }
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $name:literal, $retry:ident, $meaning:literal;)*) => {
        /// The table of everything that can go wrong. Codes are grouped by hundred, stable, and never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $(#[doc = $meaning] $(#[$doc])* $kind,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The stable number, the same in every language.
            pub const fn code(self) -> u16 {
                match self { $(Self::$kind => $code),* }
            }

            /// The stable name, such as `OUTBOX_FULL`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// Whether repeating the call can help.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$kind => Retry::$retry),* }
            }

            /// One sentence for the documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning),* }
            }
        }
    };
}

error_kinds! {
    InvalidArgument = 101, "INVALID_ARGUMENT", Never, "An option or argument cannot be used; the text says which and why.";
    PayloadTooLarge = 102, "PAYLOAD_TOO_LARGE", Never, "The message is over the size limit of its direction.";
    Unsupported = 103, "UNSUPPORTED", Never, "The protocol or build in use cannot do this.";
    Closed = 201, "CLOSED", Never, "The client was closed before the call.";
    InUse = 202, "IN_USE", Later, "Another process, or another client of this one, has this directory open.";
    Cancelled = 203, "CANCELLED", CallersChoice, "The caller stopped waiting.";
    OutboxFull = 301, "OUTBOX_FULL", Later, "The outbox is at its bound and its overflow policy is to refuse.";
    Expired = 302, "EXPIRED", Never, "The time to live ended first.";
    Rejected = 303, "REJECTED", Never, "The other side refused this for good.";
    Conflict = 304, "CONFLICT", Never, "It exists already, was settled already, or changed meanwhile.";
    Timeout = 305, "TIMEOUT", WaitAgain, "The deadline passed; the message is still kept and delivery goes on.";
    NotFound = 306, "NOT_FOUND", Never, "There is no such device, message or partition.";
    QueueFull = 307, "QUEUE_FULL", Later, "The device's queue of commands is at its bound; wait until some are settled, or purge it.";
    LockLost = 308, "LOCK_LOST", Never, "The lock on the command has ended; the hub delivers it again, or has ended it.";
    Unauthorized = 401, "UNAUTHORIZED", Never, "The credentials are wrong, expired, or do not allow this.";
    Unreachable = 402, "UNREACHABLE", Later, "The other side could not be reached, or the connection was lost.";
    Protocol = 403, "PROTOCOL", Never, "The other side broke the protocol; the text names the rule.";
    Throttled = 404, "THROTTLED", Later, "The other side asked to slow down.";
    JournalIo = 501, "JOURNAL_IO", AfterReopen, "The disk refused a write or a sync; nothing more is accepted until the journal is opened again.";
    JournalCorrupt = 502, "JOURNAL_CORRUPT", Never, "The journal cannot be read at all; single damaged records never cause this.";
    JournalVersion = 503, "JOURNAL_VERSION", Never, "The journal was written by a newer version.";
    DiskFull = 504, "DISK_FULL", Later, "There is no space left on the disk; nothing was stored, and it works again when space returns.";
    Internal = 901, "INTERNAL", Never, "A defect in Whimbrel; please report it with the text.";
}

/// The table as `docs/errors.md` holds it.
#[doc(hidden)]
pub fn error_table_markdown() -> String {
    let mut table = String::from(ERRORS_HEAD);
    for kind in ErrorKind::ALL {
        let (code, name, retry, meaning) = (kind.code(), kind.name(), kind.retry().name(), kind.meaning());
        table.push_str(&format!("| {code} | `{name}` | {retry} | {meaning} |\n"));
    }
    table
}

const ERRORS_HEAD: &str = "\
# Errors

Every call that can fail, in every language, fails with one of these kinds. Number and name never change and are never
used for anything else. An error also says which call failed, what was wrong and, where there is one, what to do; it never
holds a payload, a key or a token. This page is generated from the code: `cargo xtask gen`.

Repeating the same call: *never* helps, may help *later*, means waiting on (*wait again*), helps *after reopen*ing the
outbox, or is the *caller's choice*.

| Code | Name | Repeat | Meaning |
| --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_ordered() {
        let codes: Vec<u16> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "codes must rise: {codes:?}");
        let mut names: Vec<&str> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn display_is_one_line_with_details_and_cause() {
        let error = Error::new(ErrorKind::InUse, "device.open", "the outbox is open in another process")
            .with("pid", 42)
            .caused_by(std::io::Error::other("locked"));
        assert_eq!(error.to_string(), "device.open: the outbox is open in another process (pid: 42): locked");
    }
}
