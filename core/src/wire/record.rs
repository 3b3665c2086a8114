//! A message as bytes in a journal: the outbox of a device and the event log of a hub use the same form.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version of this form, 1 |
//! | 1 | lane: 0 telemetry, 1 alert |
//! | 2 | which system properties are present, one bit each, little-endian |
//! | varint | number of application properties |
//! | | the system properties present, in order of their bits: a text, or a time of 8 bytes seconds and 4 bytes nanoseconds since 1970 |
//! | | the application properties: name and value, two texts each |
//! | rest | body |
//!
//! A text is its length as a varint and its bytes. The checksum is the journal's.

use std::time::SystemTime;

use bytes::Bytes;

use super::time;
use crate::{
    Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties,
    message::{SystemName, SystemSlot, SystemValue},
};

/// Appends `message` (lane, body, properties, system properties; not time to live and durability) to `out`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let (system, properties, body) = (message.system(), message.properties(), message.body());
    out.push(VERSION);
    out.push(match message.lane() {
        Lane::Telemetry => 0,
        Lane::Alert => 1,
    });
    let present = system.iter().fold(0_u16, |present, (name, _)| present | bit(name));
    out.extend_from_slice(&present.to_le_bytes());
    put_length(properties.len(), out);
    for (_, value) in system.iter() {
        match value {
            SystemValue::Text(text) => put_text(text, out),
            SystemValue::Time(time) => put_time(time, out),
        }
    }
    for (name, value) in properties.iter() {
        put_text(name, out);
        put_text(value, out);
    }
    out.extend_from_slice(body);
}

/// Reads what [`encode`] wrote. The body shares the memory of `bytes`.
///
/// # Errors
/// `JournalCorrupt` when the bytes are not such a record, `JournalVersion` when a newer version wrote them.
pub fn decode(bytes: Bytes) -> Result<Message> {
    let mut parts = Parts(&bytes);
    match parts.byte() {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            let error = Error::new(
                ErrorKind::JournalVersion,
                OPERATION,
                "the message was stored by a newer version of Whimbrel",
            );
            return Err(error.with("version", newer).with("known", VERSION));
        }
        _ => return Err(corrupt()),
    }
    let (lane, properties, system) = parts.head().ok_or_else(corrupt)?;
    let body = bytes.slice(bytes.len() - parts.0.len()..);
    Ok(Message::from_parts(lane, body, properties, system))
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn put_time(time: SystemTime, out: &mut Vec<u8>) {
    let (seconds, nanos) = time::since_epoch(time);
    out.extend_from_slice(&seconds.to_le_bytes());
    out.extend_from_slice(&nanos.to_le_bytes());
}

/// What is left to read; every reader gives `None` at anything [`encode`] does not write.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Everything between version and body.
    fn head(&mut self) -> Option<(Lane, Properties, SystemProperties)> {
        let lane = match self.byte()? {
            0 => Lane::Telemetry,
            1 => Lane::Alert,
            _ => return None,
        };
        let present = u16::from_le_bytes(self.array()?);
        if present >> SystemName::ALL.len() != 0 {
            return None;
        }
        let count = self.length()?;
        let mut system = SystemProperties::default();
        for name in SystemName::ALL.into_iter().filter(|name| present & bit(*name) != 0) {
            match system.slot(name) {
                SystemSlot::Text(text) => *text = Some(self.text()?.to_owned()),
                SystemSlot::Time(time) => *time = Some(self.time()?),
            }
        }
        // Each takes two bytes at least: a wrong count must not make us ask for all the memory there is.
        if count > self.0.len() / 2 {
            return None;
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.text()?.to_owned(), self.text()?.to_owned()));
        }
        Some((lane, Properties::from_pairs(pairs), system))
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(length).ok();
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    fn time(&mut self) -> Option<SystemTime> {
        let seconds = i64::from_le_bytes(self.array()?);
        let nanos = u32::from_le_bytes(self.array()?);
        (nanos < 1_000_000_000).then(|| time::from_epoch(seconds, nanos))?
    }
}

const fn bit(name: SystemName) -> u16 {
    1 << name as u16
}

fn corrupt() -> Error {
    Error::new(ErrorKind::JournalCorrupt, OPERATION, "the stored bytes are not a message")
}

const OPERATION: &str = "record.decode";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        encode(message, &mut out);
        out
    }

    fn sample() -> Message {
        Message::alert("overheat")
            .message_id("m-1")
            .content_type("text/plain")
            .creation_time(SystemTime::UNIX_EPOCH - Duration::from_nanos(1))
            .property("room", "attic")
            .property("größe", "")
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for message in [Message::telemetry(""), Message::telemetry(vec![0; 70_000]), sample()] {
            assert_eq!(decode(encoded(&message).into()).unwrap(), message);
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let message = Message::telemetry("b").message_id("i").property("k", "vv");
        assert_eq!(encoded(&message), b"\x01\x00\x01\x00\x01\x01i\x01k\x02vvb");
        assert_eq!(encoded(&Message::alert("")), b"\x01\x01\x00\x00\x00");
    }

    #[test]
    fn the_body_is_not_copied() {
        let bytes = Bytes::from(encoded(&sample()));
        let message = decode(bytes.clone()).unwrap();
        assert_eq!(message.body().as_ptr_range().end, bytes.as_ptr_range().end);
    }

    #[test]
    fn a_cut_head_is_corrupt_and_a_newer_version_is_told_apart() {
        let whole = encoded(&sample());
        let head = whole.len() - sample().body().len();
        for length in 0..head {
            let error = decode(Bytes::copy_from_slice(&whole[..length])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::JournalCorrupt, "cut at {length}");
        }
        let newer = decode(Bytes::from_static(&[2, 0, 0, 0, 0])).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::JournalVersion);
        // A count that no memory could hold.
        assert!(decode(Bytes::from_static(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f])).is_err());
    }
}
