//! What an error of the other side means to us: contract `errors.md`.

use std::time::Duration;

use fe2o3_amqp::{
    connection::{self, ConnectionStopReason, OpenError},
    link::{
        DetachError, DispositionError, LinkStateError, ReceiverAttachError, RecvError, SendError,
        SenderAttachError, SessionStopReason,
    },
    session::{self, BeginError},
};
use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition},
    primitives::Symbol,
};

use crate::{
    Error, ErrorKind,
    wire::{amqp, refusal::Refusal},
};

/// Longest text of the other side that is kept.
const SAID_LIMIT: usize = 300;

/// The name of a condition, such as `amqp:not-found`.
pub(crate) fn condition(error: &definitions::Error) -> String {
    let Symbol(name) = match &error.condition {
        ErrorCondition::AmqpError(error) => error.into(),
        ErrorCondition::ConnectionError(error) => error.into(),
        ErrorCondition::SessionError(error) => error.into(),
        ErrorCondition::LinkError(error) => error.into(),
        ErrorCondition::Custom(name) => name.clone(),
    };
    name
}

/// What a condition is here. What may pass by itself is `Unreachable`, and so is what nobody has heard of.
/// `amqp:resource-limit-exceeded` is a full queue of commands; on a device's own links it is a quota, and
/// [`ErrorKind::Throttled`] (contract `errors.md`, conflicts).
pub(crate) fn kind(condition: &str) -> ErrorKind {
    match condition {
        "amqp:internal-error" => return ErrorKind::Unreachable,
        "amqp:not-implemented" => return ErrorKind::Unsupported,
        "amqp:invalid-field" | "com.microsoft:argument-out-of-range" => return ErrorKind::InvalidArgument,
        "amqp:decode-error" | "amqp:illegal-state" | "amqp:frame-size-too-small" => {
            return ErrorKind::Protocol;
        }
        "amqp:connection:framing-error" => return ErrorKind::Protocol,
        "com.microsoft:iot-hub-suspended" | "com.microsoft:auth-failed" => return ErrorKind::Unauthorized,
        "com.microsoft:entity-disabled" => return ErrorKind::NotFound,
        _ => {}
    }
    let row = Refusal::ALL.iter().find(|row| row.condition == condition);
    row.map_or(ErrorKind::Unreachable, |row| row.kind)
}

/// How long the other side asks to wait, where it does: ours, see [`amqp::RETRY_AFTER`].
pub(crate) fn wait(error: &definitions::Error) -> Option<Duration> {
    let info = error.info.as_ref()?;
    let wait = info.get(&Symbol::from(amqp::RETRY_AFTER))?;
    amqp::number(wait).map(Duration::from_millis)
}

/// An error that the other side told us. `doing` says for people what ended by it.
pub(crate) fn told(operation: &'static str, doing: &'static str, said: &definitions::Error) -> Error {
    let condition = condition(said);
    let error = Error::new(kind(&condition), operation, doing).with("condition", condition);
    let error = match &said.description {
        Some(text) => error.with("said", shortened(text)),
        None => error,
    };
    match wait(said) {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// One line of at most so much.
pub(crate) fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_LIMIT).collect();
    line.trim().to_owned()
}

/// An error of the AMQP crate, which may hold one that the other side told.
pub(crate) trait Fault: std::error::Error + Send + Sync + Sized + 'static {
    /// What the other side said, if it said anything.
    fn said(&self) -> Option<&definitions::Error>;

    /// As an error of ours: what the other side told, or that the connection was lost.
    fn explained(self, operation: &'static str, doing: &'static str) -> Error {
        match self.said() {
            Some(said) => told(operation, doing, said),
            None => Error::new(ErrorKind::Unreachable, operation, doing).caused_by(self),
        }
    }
}

fn of_connection(reason: &ConnectionStopReason) -> Option<&definitions::Error> {
    match reason {
        ConnectionStopReason::RemoteClosedWithError(error) => Some(error),
        _ => None,
    }
}

fn of_session(reason: &SessionStopReason) -> Option<&definitions::Error> {
    match reason {
        SessionStopReason::RemoteEndedWithError(error) => Some(error),
        SessionStopReason::ConnectionStopped(reason) => of_connection(reason),
        _ => None,
    }
}

fn of_link(error: &LinkStateError) -> Option<&definitions::Error> {
    match error {
        LinkStateError::RemoteDetachedWithError(error) | LinkStateError::RemoteClosedWithError(error) => {
            Some(error)
        }
        LinkStateError::SessionStopped(reason) => of_session(reason),
        _ => None,
    }
}

impl Fault for OpenError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteClosedWithError(error) => Some(error),
            _ => None,
        }
    }
}

impl Fault for connection::Error {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteClosedWithError(error) => Some(error),
            _ => None,
        }
    }
}

impl Fault for BeginError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteEndedWithError(error) => Some(error),
            Self::ConnectionStopped(reason) => of_connection(reason),
            _ => None,
        }
    }
}

impl Fault for session::Error {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteEndedWithError(error) => Some(error),
            Self::ConnectionStopped(reason) => of_connection(reason),
            _ => None,
        }
    }
}

impl Fault for SenderAttachError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteClosedWithError(error) => Some(error),
            Self::SessionStopped(reason) => of_session(reason),
            _ => None,
        }
    }
}

impl Fault for ReceiverAttachError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteClosedWithError(error) => Some(error),
            Self::SessionStopped(reason) => of_session(reason),
            _ => None,
        }
    }
}

impl Fault for DetachError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::RemoteDetachedWithError(error) | Self::RemoteClosedWithError(error) => Some(error),
            Self::SessionStopped(reason) => of_session(reason),
            _ => None,
        }
    }
}

impl Fault for SendError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::LinkStateError(error) => of_link(error),
            Self::Detached(error) => error.said(),
            _ => None,
        }
    }
}

impl Fault for RecvError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::LinkStateError(error) => of_link(error),
            _ => None,
        }
    }
}

impl Fault for DispositionError {
    fn said(&self) -> Option<&definitions::Error> {
        match self {
            Self::SessionStopped(reason) => of_session(reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::{
        definitions::{AmqpError, Fields},
        primitives::Value,
    };

    use super::*;

    #[test]
    fn every_condition_of_the_contract_is_known() {
        for (condition, expected) in [
            ("amqp:unauthorized-access", ErrorKind::Unauthorized),
            ("amqp:not-found", ErrorKind::NotFound),
            ("amqp:not-allowed", ErrorKind::InvalidArgument),
            ("amqp:not-implemented", ErrorKind::Unsupported),
            ("amqp:internal-error", ErrorKind::Unreachable),
            ("amqp:resource-limit-exceeded", ErrorKind::QueueFull),
            ("amqp:link:message-size-exceeded", ErrorKind::PayloadTooLarge),
            ("amqp:link:stolen", ErrorKind::Conflict),
            ("amqp:link:detach-forced", ErrorKind::Unreachable),
            ("amqp:connection:forced", ErrorKind::Unreachable),
            ("amqp:session:window-violation", ErrorKind::Unreachable),
            ("com.microsoft:timeout", ErrorKind::Timeout),
            ("com.microsoft:server-busy", ErrorKind::Unreachable),
            ("com.microsoft:message-lock-lost", ErrorKind::LockLost),
            ("com.microsoft:argument-error", ErrorKind::InvalidArgument),
            ("com.microsoft:device-container-throttled", ErrorKind::Throttled),
            ("com.microsoft:quota-exceeded", ErrorKind::Throttled),
            ("com.microsoft:precondition-failed", ErrorKind::Conflict),
            ("com.microsoft:iot-hub-not-found-error", ErrorKind::NotFound),
            ("com.microsoft:iot-hub-suspended", ErrorKind::Unauthorized),
            ("com.example:new", ErrorKind::Unreachable),
        ] {
            assert_eq!(kind(condition), expected, "{condition}");
        }
    }

    #[test]
    fn a_wait_and_the_text_are_kept() {
        let mut info = Fields::new();
        info.insert(Symbol::from(amqp::RETRY_AFTER), Value::Uint(1_500));
        let said = definitions::Error::new(AmqpError::NotAllowed, Some("no\nway".into()), Some(info));
        let error = told("device.connect", "the hub ended the link", &said);
        assert_eq!(error.wait_hint(), Some(Duration::from_millis(1_500)));
        assert_eq!(
            error.to_string(),
            "device.connect: the hub ended the link (condition: amqp:not-allowed, said: no way)"
        );
    }
}
