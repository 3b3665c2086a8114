//! How a command ended, and the feedback records that tell the service. Contract `c2d.md`, "Feedback".
//!
//! ```
//! use whimbrel::wire::feedback::{CommandOutcome, Feedback};
//!
//! let json = r#"{"originalMessageId":"m-1","enqueuedTimeUtc":"2026-01-31T12:00:00.0000000Z","statusCode":"Success",
//!     "description":"Success","deviceId":"d1","deviceGenerationId":"638"}"#;
//! let record: Feedback = serde_json::from_str(json)?;
//! assert_eq!(record.outcome()?, CommandOutcome::Completed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{borrow::Cow, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::time;
use crate::{Error, ErrorKind, Result};

/// Content type of a feedback message.
pub const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";

/// How a command ended. Every command ends in exactly one of these, or with its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandOutcome {
    /// The device completed it.
    Completed,
    /// The device rejected it.
    Rejected,
    /// Its time to live ended first.
    Expired,
    /// The device abandoned it too often.
    DeliveryCountExceeded,
    /// The service emptied the queue.
    Purged,
}

impl CommandOutcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Rejected, Self::Expired, Self::DeliveryCountExceeded, Self::Purged];

    /// The word in feedback records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "Success",
            Self::Rejected => "Rejected",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Purged => "Purged",
        }
    }

    /// The outcome of a word, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word().eq_ignore_ascii_case(word))
    }
}

/// One feedback record, as it is written. Names and their order are the contract's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Feedback {
    /// Message id of the command.
    pub original_message_id: String,
    /// When it ended, ISO 8601 in UTC.
    pub enqueued_time_utc: String,
    /// [`CommandOutcome::word`].
    pub status_code: Cow<'static, str>,
    /// The same word: the C SDK reads this one only.
    #[serde(default)]
    pub description: Cow<'static, str>,
    /// Device it was for.
    pub device_id: String,
    /// Generation of that device when the command was sent.
    #[serde(default)]
    pub device_generation_id: String,
}

impl Feedback {
    /// The record of a command that ended.
    pub fn new(
        message_id: impl Into<String>,
        ended_at: SystemTime,
        outcome: CommandOutcome,
        device: impl Into<String>,
        generation: impl Into<String>,
    ) -> Self {
        Self {
            original_message_id: message_id.into(),
            enqueued_time_utc: time::format(ended_at),
            status_code: outcome.word().into(),
            description: outcome.word().into(),
            device_id: device.into(),
            device_generation_id: generation.into(),
        }
    }

    /// How the command ended.
    ///
    /// # Errors
    /// `Protocol` for a word that is not in the contract.
    pub fn outcome(&self) -> Result<CommandOutcome> {
        CommandOutcome::from_word(&self.status_code).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "feedback.outcome", "the feedback has an unknown status code")
        })
    }

    /// When the command ended, where the text can be read.
    pub fn ended_at(&self) -> Option<SystemTime> {
        time::parse(&self.enqueued_time_utc)
    }
}

/// Which outcomes the service wants feedback about: application property `iothub-ack` of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FeedbackWanted {
    /// About none.
    #[default]
    None,
    /// When the device completed it.
    Positive,
    /// When it ended in any other way.
    Negative,
    /// About all.
    Full,
}

impl FeedbackWanted {
    /// Name of the application property.
    pub const PROPERTY: &'static str = "iothub-ack";

    /// The word in the property.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Reads a word, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|wanted| wanted.word().eq_ignore_ascii_case(word))
    }

    /// Whether there is to be a record about this outcome.
    pub const fn includes(self, outcome: CommandOutcome) -> bool {
        match self {
            Self::None => false,
            Self::Positive => matches!(outcome, CommandOutcome::Completed),
            Self::Negative => !matches!(outcome, CommandOutcome::Completed),
            Self::Full => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_in_any_case() {
        for outcome in CommandOutcome::ALL {
            assert_eq!(CommandOutcome::from_word(&outcome.word().to_lowercase()), Some(outcome));
        }
        assert_eq!(CommandOutcome::from_word("Completed"), None, "the wire says Success");
        assert_eq!(FeedbackWanted::from_word("FULL"), Some(FeedbackWanted::Full));
        assert_eq!(FeedbackWanted::from_word("all"), None);
    }

    #[test]
    fn feedback_is_about_what_was_asked() {
        use CommandOutcome::{Completed, Expired};
        for (wanted, completed, expired) in [
            (FeedbackWanted::None, false, false),
            (FeedbackWanted::Positive, true, false),
            (FeedbackWanted::Negative, false, true),
            (FeedbackWanted::Full, true, true),
        ] {
            assert_eq!((wanted.includes(Completed), wanted.includes(Expired)), (completed, expired));
        }
    }

    #[test]
    fn a_record_has_the_names_of_the_contract() {
        let ended = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_769_860_800);
        let record = Feedback::new("m", ended, CommandOutcome::Purged, "d", "g");
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"originalMessageId":"m","enqueuedTimeUtc":"2026-01-31T12:00:00.0000000Z","statusCode":"Purged","description":"Purged","deviceId":"d","deviceGenerationId":"g"}"#
        );
        assert_eq!(record.ended_at(), Some(ended));
    }
}
