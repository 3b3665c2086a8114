//! Errors as AMQP carries them: condition, description, and an info map with the number of the contract.

use fe2o3_amqp_types::{
    definitions::{AmqpError, Error, ErrorCondition},
    messaging::{DeliveryState, Rejected},
    primitives::{OrderedMap, Symbol, Value},
};
use whimbrel::{ErrorKind, wire::refusal::Refusal};

/// An error by its row in the contract's table.
pub(super) fn refusal(row: Refusal, text: &str) -> Error {
    let mut info = OrderedMap::new();
    info.insert(Symbol::from("com.microsoft:tracking-id"), Value::String(tracking_id()));
    info.insert(
        Symbol::from("com.microsoft:error-code"),
        Value::Int(i32::try_from(row.number).unwrap_or_default()),
    );
    Error::new(condition(row), format!("{}: {text}", row.name), info)
}

/// An error of the hub's own, as the contract has it. What went wrong inside is not for the peer.
pub(super) fn of(error: &whimbrel::Error) -> Error {
    let row = row(error);
    let text = match error.kind() {
        ErrorKind::DiskFull | ErrorKind::JournalIo | ErrorKind::Internal => "the hub cannot store it now",
        _ => error.message(),
    };
    refusal(row, text)
}

/// The row an error goes out as.
fn row(error: &whimbrel::Error) -> Refusal {
    let is_about = |part: &str| error.details().iter().any(|(name, value)| *name == "part" && value == part);
    match error.kind() {
        ErrorKind::InvalidArgument if is_about("expiry") => Refusal::INVALID_EXPIRY,
        kind => Refusal::of(kind),
    }
}

/// The peer may not do this.
pub(super) fn unauthorized(text: &str) -> Error {
    refusal(Refusal::UNAUTHORIZED, text)
}

/// The lock of a command or of feedback is over.
pub(super) fn lock_lost() -> Error {
    refusal(Refusal::LOCK_LOST, "the lock of this delivery is over")
}

/// The outcome that tells an error.
pub(super) fn rejected(error: Error) -> DeliveryState {
    DeliveryState::Rejected(Rejected { error: Some(error) })
}

/// There is no such thing here.
pub(super) fn not_implemented(text: &str) -> Error {
    Error::new(AmqpError::NotImplemented, text.to_owned(), None)
}

fn condition(row: Refusal) -> ErrorCondition {
    ErrorCondition::Custom(Symbol::from(row.condition))
}

/// Something to find the error by in both logs.
fn tracking_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness it is no help, and no harm.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
