//! Values as they cross the border.

use std::{collections::HashMap, time::Duration};

use whimbrel::{Error, ErrorKind, Message, Result, SystemProperties};
use whimbrel_bindings_support::{self as support, document::unix_ms};

use crate::{Durability, Failure, Lane};

/// What a program says about a message besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct Draft {
    /// The queue of the outbox it waits in.
    #[uniffi(default)]
    pub lane: Option<Lane>,
    /// Application properties, in order.
    #[uniffi(default)]
    pub properties: Vec<Property>,
    /// The id that outcomes and receipts are found by. Without one the outbox makes one.
    #[uniffi(default)]
    pub message_id: Option<String>,
    /// Correlation id.
    #[uniffi(default)]
    pub correlation_id: Option<String>,
    /// User id.
    #[uniffi(default)]
    pub user_id: Option<String>,
    /// Content type.
    #[uniffi(default)]
    pub content_type: Option<String>,
    /// Content encoding.
    #[uniffi(default)]
    pub content_encoding: Option<String>,
    /// Creation time, milliseconds since 1970.
    #[uniffi(default)]
    pub creation_time_ms: Option<i64>,
    /// Schema of the content.
    #[uniffi(default)]
    pub message_schema: Option<String>,
    /// Output of a module.
    #[uniffi(default)]
    pub output_name: Option<String>,
    /// Interface id of a security message.
    #[uniffi(default)]
    pub interface_id: Option<String>,
    /// Component the message belongs to.
    #[uniffi(default)]
    pub component: Option<String>,
    /// Time to live, milliseconds.
    #[uniffi(default)]
    pub expires_in_ms: Option<u64>,
    /// What `send` waits for.
    #[uniffi(default)]
    pub durability: Option<Durability>,
}

/// An application property.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A message on its way out, for `send_many`.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Outgoing {
    /// The body.
    pub body: Vec<u8>,
    /// What is said about it.
    #[uniffi(default)]
    pub draft: Option<Draft>,
}

impl Draft {
    pub(crate) fn message(self, operation: &'static str, body: Vec<u8>) -> Result<Message> {
        let properties = self.properties.into_iter().map(|Property { name, value }| (name, value));
        let draft = support::Draft {
            lane: self.lane.map(|lane| lane.word().to_owned()),
            properties: properties.collect(),
            message_id: self.message_id,
            correlation_id: self.correlation_id,
            user_id: self.user_id,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            creation_time_ms: self.creation_time_ms,
            message_schema: self.message_schema,
            output_name: self.output_name,
            interface_id: self.interface_id,
            component: self.component,
            expires_in_ms: self.expires_in_ms,
            durability: self.durability.map(|durability| durability.word().to_owned()),
        };
        draft.message(operation, body)
    }
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Received {
    /// The body.
    pub body: Vec<u8>,
    /// Application properties, in order.
    pub properties: Vec<Property>,
    /// Message id.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// User id.
    pub user_id: Option<String>,
    /// Content type.
    pub content_type: Option<String>,
    /// Content encoding.
    pub content_encoding: Option<String>,
    /// Creation time, milliseconds since 1970.
    pub creation_time_ms: Option<i64>,
    /// Its number in the device's queue, where the protocol tells it.
    pub sequence: Option<u64>,
    /// When the hub took it in, milliseconds since 1970, where the protocol tells it.
    pub enqueued_at_ms: Option<i64>,
    /// How many deliveries counted before this one, where the protocol tells it.
    pub delivery_count: Option<u32>,
}

impl Received {
    pub(crate) fn of(command: &whimbrel::Command) -> Self {
        let SystemProperties {
            message_id,
            correlation_id,
            user_id,
            content_type,
            content_encoding,
            creation_time,
            ..
        } = command.message().system().clone();
        let property =
            |(name, value): (&str, &str)| Property { name: name.to_owned(), value: value.to_owned() };
        Self {
            body: command.body().to_vec(),
            properties: command.properties().iter().map(property).collect(),
            message_id,
            correlation_id,
            user_id,
            content_type,
            content_encoding,
            creation_time_ms: creation_time.map(unix_ms),
            sequence: command.sequence(),
            enqueued_at_ms: command.enqueued_at().map(unix_ms),
            delivery_count: command.delivery_count(),
        }
    }
}

/// What `send` gives: numbers, for objects are dear. `Device::state`, `Device::outcome` and `Device::message_id` take place and
/// sequence; they hold for as long as the device does, also through `suspend` and `resume`. Across restarts the message id
/// leads back.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Receipt {
    /// The first number.
    pub place: u64,
    /// The second number.
    pub sequence: u64,
    /// The message id, where the program chose it or the message has ended; else `Device::message_id` makes it.
    pub message_id: Option<String>,
    /// How the message ended, where that was known when the receipt was made. Then the numbers mean nothing.
    pub ended: Option<Outcome>,
}

impl Receipt {
    /// `chosen` is the id the program gave the message, if it did.
    pub(crate) fn of(receipt: &whimbrel::Receipt, chosen: Option<String>) -> Result<Self> {
        if let Some(key) = receipt.key() {
            let [place, sequence] = key.to_parts();
            return Ok(Self { place, sequence, message_id: chosen, ended: None });
        }
        let ended = match receipt.state() {
            whimbrel::ReceiptState::Settled(outcome) => Some(Outcome::of("receipt", &outcome)?),
            _ => None,
        };
        Ok(Self { place: 0, sequence: 0, message_id: Some(receipt.message_id().to_owned()), ended })
    }
}

/// What became of a message that was handed to `Device::accept`.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Stored {
    /// It is safe.
    Safe {
        /// The token it was handed over with.
        token: u64,
        /// Its receipt.
        receipt: Receipt,
    },
    /// It could not be stored.
    Failed {
        /// The token it was handed over with.
        token: u64,
        /// Why.
        failure: Failure,
    },
}

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Outcome {
    /// Durable at the hub, which told where, if it did.
    Delivered {
        /// Partition of the event log.
        partition: Option<u32>,
        /// Sequence number in the partition.
        sequence: Option<u64>,
    },
    /// Its time to live ended first.
    Expired,
    /// Given up by this side.
    Dropped {
        /// Why: `made-room`, `no-room` or `damaged`.
        reason: String,
    },
    /// Refused by the hub for good.
    Rejected {
        /// What the hub said.
        reason: String,
    },
}

impl Outcome {
    pub(crate) fn of(operation: &'static str, outcome: &whimbrel::Outcome) -> Result<Self> {
        Ok(match outcome {
            whimbrel::Outcome::Delivered { partition, sequence } => {
                Self::Delivered { partition: *partition, sequence: *sequence }
            }
            whimbrel::Outcome::Expired => Self::Expired,
            whimbrel::Outcome::Dropped { reason } => Self::Dropped { reason: reason.name().to_owned() },
            whimbrel::Outcome::Rejected { reason } => Self::Rejected { reason: reason.clone() },
            other => return Err(unknown(operation, "outcome", other)),
        })
    }
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ReceiptState {
    /// In the outbox.
    Queued,
    /// On its way, not acknowledged.
    Sent,
    /// Ended.
    Settled {
        /// How.
        outcome: Outcome,
    },
    /// Ended so long ago that its outcome is no longer kept, or the outbox is gone.
    Unknown,
}

impl ReceiptState {
    pub(crate) fn of(state: &whimbrel::ReceiptState) -> Result<Self> {
        Ok(match state {
            whimbrel::ReceiptState::Queued => Self::Queued,
            whimbrel::ReceiptState::Sent => Self::Sent,
            whimbrel::ReceiptState::Unknown => Self::Unknown,
            whimbrel::ReceiptState::Settled(outcome) => {
                Self::Settled { outcome: Outcome::of("receipt.state", outcome)? }
            }
        })
    }
}

/// What the link to the hub is doing.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ConnectionState {
    /// The hub answers.
    Connected,
    /// On the way to it.
    Connecting,
    /// Not connected; it is tried again.
    Disconnected {
        /// Why, where it is known.
        reason: Option<String>,
    },
    /// The hub does not accept the credentials; it is tried again, seldom.
    Unauthorized {
        /// What the hub said.
        reason: String,
    },
    /// Suspended by the program.
    Suspended,
    /// The client was closed.
    Closed,
}

impl ConnectionState {
    pub(crate) fn of(state: &whimbrel::device::ConnectionState) -> Result<Self> {
        use whimbrel::device::ConnectionState as State;
        Ok(match state {
            State::Connected => Self::Connected,
            State::Connecting => Self::Connecting,
            State::Disconnected { reason } => Self::Disconnected { reason: reason.clone() },
            State::Unauthorized { reason } => Self::Unauthorized { reason: reason.clone() },
            State::Suspended => Self::Suspended,
            State::Closed => Self::Closed,
            other => return Err(unknown("device.connection", "state", other)),
        })
    }
}

/// The account of an outbox over the whole life of its folder:
/// `accepted == delivered + expired + dropped + rejected + queued`, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Account {
    /// Messages taken in.
    pub accepted: u64,
    /// Durable at the hub.
    pub delivered: u64,
    /// Ended by their time to live.
    pub expired: u64,
    /// Given up, for any reason.
    pub dropped: u64,
    /// Refused by the hub.
    pub rejected: u64,
    /// Still here.
    pub queued: u64,
}

impl From<whimbrel::Account> for Account {
    fn from(account: whimbrel::Account) -> Self {
        let whimbrel::Account { accepted, delivered, expired, dropped, rejected, queued } = account;
        Self { accepted, delivered, expired, dropped, rejected, queued }
    }
}

/// Figures of an outbox.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Counters {
    /// The account.
    pub account: Account,
    /// Messages in the alert lane, part of `account.queued`.
    pub queued_alerts: u64,
    /// Bytes waiting.
    pub queued_bytes: u64,
    /// Age of the oldest waiting message.
    pub oldest_age_ms: Option<u64>,
    /// Publishes handed to the network since opening, resends included.
    pub sent: u64,
    /// Dropped, by reason, over the whole life of the folder; reasons that never occurred are left out.
    pub dropped_by_reason: HashMap<String, u64>,
    /// Refused because the outbox was full, since opening; they were never accepted.
    pub refused: u64,
    /// Bytes written to the disk since opening.
    pub written_bytes: u64,
}

impl From<whimbrel::Counters> for Counters {
    fn from(counters: whimbrel::Counters) -> Self {
        let age = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let by_reason = counters.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), *count));
        Self {
            account: counters.account.into(),
            queued_alerts: counters.queued_alerts,
            queued_bytes: counters.queued_bytes,
            oldest_age_ms: counters.oldest_age.map(age),
            sent: counters.sent,
            dropped_by_reason: by_reason.collect(),
            refused: counters.refused,
            written_bytes: counters.written_bytes,
        }
    }
}

/// The core has a new one that these bindings do not know: a defect of theirs.
fn unknown(operation: &'static str, what: &'static str, given: &impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::Internal, operation, format!("the bindings do not know this {what}: {given:?}"))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_is_said_is_in_the_message() {
        let draft = Draft {
            lane: Some(Lane::Alert),
            properties: vec![Property { name: "room".into(), value: "attic".into() }],
            message_id: Some("m".into()),
            creation_time_ms: Some(-1500),
            expires_in_ms: Some(7),
            durability: Some(Durability::Memory),
            ..Draft::default()
        };
        let message = draft.message("device.send", b"x".to_vec()).unwrap();
        assert_eq!(
            (message.lane(), message.properties().get("room")),
            (whimbrel::Lane::Alert, Some("attic"))
        );
        assert_eq!(message.system().message_id.as_deref(), Some("m"));
        assert_eq!(message.system().creation_time, UNIX_EPOCH.checked_sub(Duration::from_millis(1500)));
        assert_eq!(message.time_to_live(), Some(Duration::from_millis(7)));
        assert_eq!(message.wanted_durability(), Some(whimbrel::Durability::Memory));
        assert_eq!(Draft::default().message("device.send", b"x".to_vec()).unwrap(), Message::telemetry("x"));
    }

    #[test]
    fn outcomes_and_states_are_known() {
        for reason in whimbrel::DropReason::ALL {
            let dropped = Outcome::of("a.b", &whimbrel::Outcome::Dropped { reason }).unwrap();
            assert_eq!(dropped, Outcome::Dropped { reason: reason.name().into() });
        }
        let delivered = whimbrel::Outcome::Delivered { partition: Some(1), sequence: Some(2) };
        let settled = ReceiptState::of(&whimbrel::ReceiptState::Settled(delivered)).unwrap();
        let outcome = Outcome::Delivered { partition: Some(1), sequence: Some(2) };
        assert_eq!(settled, ReceiptState::Settled { outcome });
    }
}
