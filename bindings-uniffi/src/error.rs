//! Errors as they cross the border.

use std::{collections::HashMap, error::Error as StdError, fmt};

use whimbrel::{Error, ErrorKind};

/// What there is to say about an error besides its text and its details.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Circumstances {
    /// The stable name of the kind, such as `OUTBOX_FULL`.
    pub kind: String,
    /// The stable number of the kind.
    pub code: u16,
    /// The call that failed, such as `device.send`.
    pub operation: String,
    /// Whether repeating the call can help: `never`, `later`, `wait again`, `after reopen` or `caller's choice`.
    pub retry: String,
    /// How long the other side asked to wait, where it did.
    pub retry_after_ms: Option<u64>,
    /// The chain of causes, nearest first.
    pub causes: Vec<String>,
}

macro_rules! failures {
    ($($kind:ident),* $(,)?) => {
        /// What went wrong: one variant for each kind of `ErrorKind`. `reason` is one complete line for people, `details` are
        /// texts by name. Neither holds a payload, a key or a token.
        #[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
        #[allow(missing_docs, reason = "they are the rows of ErrorKind")]
        pub enum Failure {
            $($kind { reason: String, details: HashMap<String, String>, about: Circumstances },)*
        }

        impl From<&Error> for Failure {
            fn from(error: &Error) -> Self {
                let (reason, details, about) = parts(error);
                match error.kind() {
                    $(ErrorKind::$kind => Self::$kind { reason, details, about },)*
                    // The core has a new one, which the test of the table finds.
                    _ => Self::Internal { reason, details, about },
                }
            }
        }

        impl Failure {
            /// What there is to say besides text and details.
            pub fn about(&self) -> &Circumstances {
                match self { $(Self::$kind { about, .. } => about,)* }
            }

            /// One line for people.
            pub fn reason(&self) -> &str {
                match self { $(Self::$kind { reason, .. } => reason,)* }
            }
        }
    };
}

failures! {
    InvalidArgument, PayloadTooLarge, Unsupported, Closed, InUse, Cancelled, OutboxFull, Expired, Rejected, Conflict, Timeout,
    NotFound, QueueFull, LockLost, Unauthorized, Unreachable, Protocol, Throttled, JournalIo, JournalCorrupt, JournalVersion,
    DiskFull, Internal,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl StdError for Failure {}

fn parts(error: &Error) -> (String, HashMap<String, String>, Circumstances) {
    let details = error.details().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    let about = Circumstances {
        kind: error.kind().name().to_owned(),
        code: error.kind().code(),
        operation: error.operation().to_owned(),
        retry: error.kind().retry().name().to_owned(),
        retry_after_ms: error.wait_hint().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        causes,
    };
    (error.to_string(), details, about)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_its_variant() {
        for kind in ErrorKind::ALL {
            let failure = Failure::from(Error::new(*kind, "a.b", "text"));
            assert_eq!(failure.about().code, kind.code());
            let variant = format!("{failure:?}");
            let variant = variant.split(' ').next().unwrap();
            assert_eq!(variant, format!("{kind:?}"), "the kind is a variant of its own");
        }
    }

    #[test]
    fn a_failure_says_all_that_the_error_says() {
        let error = Error::new(ErrorKind::Throttled, "device.send", "too fast")
            .with("device", "d1")
            .retry_after(Duration::from_secs(2))
            .caused_by(std::io::Error::other("slow down"));
        let Failure::Throttled { reason, details, about } = Failure::from(error) else {
            panic!("another kind")
        };
        assert_eq!(reason, "device.send: too fast (device: d1): slow down");
        assert_eq!(details, HashMap::from([("device".to_owned(), "d1".to_owned())]));
        let expected = Circumstances {
            kind: "THROTTLED".into(),
            code: 404,
            operation: "device.send".into(),
            retry: "later".into(),
            retry_after_ms: Some(2000),
            causes: vec!["slow down".into()],
        };
        assert_eq!(about, expected);
    }
}
