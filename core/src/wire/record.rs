//! A message as bytes in a journal: the outbox of a device and the event log of a hub use the same form.

use bytes::Bytes;

use crate::{Message, Result};

/// Appends `message` (lane, body, properties, system properties; not time to live and durability) to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let _ = (message, out);
    unimplemented!()
}

/// Reads what [`encode`] wrote. The body shares the memory of `bytes`.
///
/// # Errors
/// `JournalCorrupt` when the bytes are not such a record.
pub fn decode(bytes: Bytes) -> Result<Message> {
    let _ = bytes;
    unimplemented!()
}
