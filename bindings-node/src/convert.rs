//! Values on their way in, errors on their way out.

use napi::bindgen_prelude::{BigInt, Either, Utf16String};
use serde_json::{Value, json};
use whimbrel::{Error, ErrorKind, Message, Outcome, Result, SystemProperties};
use whimbrel_bindings_support::{document, envelope, guard};

/// A whole number of JavaScript: a number, or a bigint.
pub(crate) type Whole = Either<f64, BigInt>;

/// Does `work`; its error, or its panic, is thrown as an envelope.
pub(crate) fn boundary<T>(operation: &'static str, work: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    guard(operation, work).map_err(|error| raised(&error))
}

/// The error as it is thrown: its text is the envelope, of which the shell makes its own error.
pub(crate) fn raised(error: &Error) -> napi::Error {
    napi::Error::from_reason(envelope(error).to_string())
}

pub(crate) fn invalid(operation: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation, message)
}

/// A text the program gave. JavaScript allows halves of surrogate pairs in texts, UTF-8 does not; they are not replaced in
/// silence.
pub(crate) fn text(operation: &'static str, name: &'static str, given: &Utf16String) -> Result<String> {
    String::from_utf16(given).map_err(|_| {
        invalid(operation, "a text holds half of a surrogate pair, which is no character").with("text", name)
    })
}

/// [`text`], where there is one.
pub(crate) fn optional_text(
    operation: &'static str,
    name: &'static str,
    given: Option<Utf16String>,
) -> Result<Option<String>> {
    given.map(|given| text(operation, name, &given)).transpose()
}

/// Milliseconds, whole and not negative.
pub(crate) fn ms(operation: &'static str, name: &'static str, given: Whole) -> Result<u64> {
    let wrong = || {
        invalid(operation, "a time is a whole number of milliseconds that is not negative").with("time", name)
    };
    match given {
        Either::A(number) if number >= 0.0 && number.fract() == 0.0 && number < BEYOND_U64 => {
            Ok(number as u64)
        }
        Either::A(_) => Err(wrong()),
        Either::B(number) => match number.get_u64() {
            (false, number, true) => Ok(number),
            (_, 0, true) => Ok(0),
            _ => Err(wrong()),
        },
    }
}

/// An outcome as JSON, with its sequence number as text, for JavaScript reads numbers in JSON as doubles.
pub(crate) fn outcome(outcome: &Outcome) -> Value {
    exact(document::outcome(outcome))
}

/// A document with its sequence number as text.
pub(crate) fn exact(mut document: Value) -> Value {
    if let Some(sequence) = document.get_mut("sequence")
        && let Some(number) = sequence.as_u64()
    {
        *sequence = number.to_string().into();
    }
    document
}

/// What a received message says besides its body, under the names of the shell.
pub(crate) fn head(message: &Message) -> Value {
    let SystemProperties {
        message_id,
        correlation_id,
        user_id,
        content_type,
        content_encoding,
        creation_time,
        message_schema,
        output_name,
        interface_id,
        component,
        ..
    } = message.system();
    let properties = message.properties().iter().map(|(name, value)| (name.to_owned(), value.into()));
    json!({
        "properties": Value::Object(properties.collect()),
        "messageId": message_id,
        "correlationId": correlation_id,
        "userId": user_id,
        "contentType": content_type,
        "contentEncoding": content_encoding,
        "creationTime": creation_time.map(document::unix_ms),
        "messageSchema": message_schema,
        "outputName": output_name,
        "interfaceId": interface_id,
        "component": component,
    })
}

/// The first number that is too large for 64 bits.
const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
