//! Messages as a program hands them over.

use std::ffi::{c_char, c_void};

use bytes::Bytes;
use whimbrel::{Message, Result};
use whimbrel_bindings_support::Draft;

use crate::{
    border::{self, invalid},
    words::{DURABILITIES, LANES, WHIMBREL_NOT_GIVEN, word},
};

/// cbindgen:ignore
///
/// The time that is none; in the header as `WHIMBREL_NOT_GIVEN`.
pub const WHIMBREL_NO_TIME: i64 = i64::MIN;

/// A named text that goes with a message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct whimbrel_property {
    /// Its name; not empty, and not beginning with "$.". UTF-8.
    pub name: *const c_char,
    /// Its value. UTF-8.
    pub value: *const c_char,
}

/// A message to be sent. Begin with WHIMBREL_MESSAGE_INIT, which says nothing about it, and set what is to be said. Everything is
/// copied by the call that gets it. Texts are UTF-8, end with a NUL, and are NULL for "not said".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct whimbrel_message {
    /// Set by WHIMBREL_MESSAGE_INIT.
    pub size: usize,
    /// The body: any bytes. May be NULL when body_length is 0.
    pub body: *const c_void,
    /// Its length in bytes. Body and properties together: at most 262,144.
    pub body_length: usize,
    /// A whimbrel_lane, or WHIMBREL_NOT_GIVEN.
    pub lane: i32,
    /// A whimbrel_durability instead of the device's own, or WHIMBREL_NOT_GIVEN.
    pub durability: i32,
    /// Application properties, in order. Of two with one name the later one counts.
    pub properties: *const whimbrel_property,
    /// How many.
    pub property_count: usize,
    /// The id that outcome and receipt are found by, also after a restart: at most 128 ASCII letters, digits and
    /// -:.+%_#*?!(),=@;$'. Without one the outbox makes one.
    pub message_id: *const c_char,
    /// Joins this message to another one.
    pub correlation_id: *const c_char,
    /// Who caused it.
    pub user_id: *const c_char,
    /// Content type of the body, such as "application/json".
    pub content_type: *const c_char,
    /// Character set of the body, such as "utf-8".
    pub content_encoding: *const c_char,
    /// When the content was made, in milliseconds since 1970-01-01 UTC, or WHIMBREL_NO_TIME.
    pub creation_time_ms: i64,
    /// Schema of the content.
    pub message_schema: *const c_char,
    /// Output of a module.
    pub output_name: *const c_char,
    /// Interface id of a security message.
    pub interface_id: *const c_char,
    /// Component the message belongs to.
    pub component: *const c_char,
    /// Time to live in milliseconds, counted from sending, also while offline; WHIMBREL_NOT_GIVEN for that of the device. 0 is
    /// refused.
    pub expires_in_ms: i64,
}

/// The message a program hands over.
///
/// # Safety
/// `message` is NULL or points to one whose pointers are valid.
pub(crate) unsafe fn read(operation: &'static str, message: *const whimbrel_message) -> Result<Message> {
    // SAFETY: promised by the caller; it is repr(C), begins with its size, and consists of numbers and raw pointers.
    let message = unsafe { border::sized(operation, "message", message)? };
    // SAFETY: promised by the caller.
    unsafe { convert(operation, &message) }
}

/// Many of them, in a row.
///
/// # Safety
/// As [`read`], for each.
pub(crate) unsafe fn read_many(
    operation: &'static str,
    messages: *const whimbrel_message,
    count: usize,
) -> Result<Vec<Message>> {
    // SAFETY: promised by the caller; as in `read`.
    let messages = unsafe { border::sized_values(operation, "messages", messages, count)? };
    let each = messages.iter().enumerate().map(|(index, message)| {
        // SAFETY: promised by the caller.
        unsafe { convert(operation, message) }.map_err(|error| error.with("index", index))
    });
    each.collect()
}

/// # Safety
/// Its pointers are valid.
unsafe fn convert(operation: &'static str, message: &whimbrel_message) -> Result<Message> {
    // SAFETY: promised by the caller, for this and each of the following texts.
    let text = |name, text| unsafe { border::optional_text(operation, name, text) };
    // SAFETY: promised by the caller.
    let body = unsafe { border::values(operation, "body", message.body.cast::<u8>(), message.body_length)? };
    let draft = Draft {
        lane: word(message.lane, LANES),
        // SAFETY: promised by the caller.
        properties: unsafe { properties(operation, message)? },
        message_id: text("message_id", message.message_id)?,
        correlation_id: text("correlation_id", message.correlation_id)?,
        user_id: text("user_id", message.user_id)?,
        content_type: text("content_type", message.content_type)?,
        content_encoding: text("content_encoding", message.content_encoding)?,
        creation_time_ms: (message.creation_time_ms != WHIMBREL_NO_TIME).then_some(message.creation_time_ms),
        message_schema: text("message_schema", message.message_schema)?,
        output_name: text("output_name", message.output_name)?,
        interface_id: text("interface_id", message.interface_id)?,
        component: text("component", message.component)?,
        expires_in_ms: number(operation, "expires_in_ms", message.expires_in_ms)?,
        durability: word(message.durability, DURABILITIES),
    };
    draft.message(operation, Bytes::copy_from_slice(body))
}

/// # Safety
/// Its pointers are valid.
unsafe fn properties(operation: &'static str, message: &whimbrel_message) -> Result<Vec<(String, String)>> {
    // SAFETY: promised by the caller.
    let properties =
        unsafe { border::values(operation, "properties", message.properties, message.property_count)? };
    let each = properties.iter().enumerate().map(|(index, property)| {
        // SAFETY: promised by the caller.
        let name = unsafe { border::text(operation, "property name", property.name) };
        // SAFETY: promised by the caller.
        let value = unsafe { border::text(operation, "property value", property.value) };
        let pair = name.and_then(|name| Ok((name.to_owned(), value?.to_owned())));
        pair.map_err(|error| error.with("property", index))
    });
    each.collect()
}

/// A number that is not negative, or is not given.
pub(crate) fn number(operation: &'static str, name: &'static str, number: i64) -> Result<Option<u64>> {
    if number == i64::from(WHIMBREL_NOT_GIVEN) {
        return Ok(None);
    }
    let given = u64::try_from(number);
    let fault = "is negative; WHIMBREL_NOT_GIVEN leaves it out";
    given.map(Some).map_err(|_| invalid(operation, name, fault).with("given", number))
}
