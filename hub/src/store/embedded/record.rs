//! An event as a record of the journal.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version of this form, 1 |
//! | 1 | bit 0: a module sent it; bit 1: it has an origin; bit 2: the origin's lane is alert; bits 4 to 7: number of a known authentication method, 0 when its text follows |
//! | 2 | partition |
//! | 8 | sequence number |
//! | 8 | time taken in, milliseconds since 1970 |
//! | 4 | how many records directly before it were not known to be durable when it was staged |
//! | | texts: device, generation, module if any, authentication method if its number is 0 |
//! | | origin if any: outbox as a text, number in 8 bytes |
//! | rest | the message, as core's `wire::record` writes it |
//!
//! Numbers are little-endian; a text is its length in 2 bytes, and its bytes.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use whimbrel::{Error, ErrorKind, Lane, Result, wire};

use crate::store::{Entry, Event, Origin, fnv1a};

const VERSION: u8 = 1;
const HAS_MODULE: u8 = 1;
const HAS_ORIGIN: u8 = 1 << 1;
const ALERT: u8 = 1 << 2;

const SEQUENCE_AT: usize = 4;
const TIME_AT: usize = 12;
const STAGED_AT: usize = 20;

/// Authentication methods that are stored as a number. The order is part of the form: only ever add to the end.
pub(crate) const AUTH_METHODS: [&str; 5] = [
    r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#,
    r#"{"scope":"hub","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#,
    r#"{"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}"#,
    r#"{"scope":"module","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#,
    r#"{"scope":"module","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}"#,
];

/// Appends the event without what [`place`] adds.
///
/// # Errors
/// `InvalidArgument` when a text is over 65,535 bytes.
pub(super) fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<()> {
    let known = AUTH_METHODS.iter().position(|text| *text == entry.auth_method).map_or(0, |index| index + 1);
    let mut flags = (known as u8) << 4;
    if entry.module.is_some() {
        flags |= HAS_MODULE;
    }
    if let Some(origin) = &entry.origin {
        flags |= HAS_ORIGIN;
        if origin.lane == Lane::Alert {
            flags |= ALERT;
        }
    }
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&(entry.partition as u16).to_le_bytes());
    out.extend_from_slice(&[0; 20]);
    put_text(entry.device, out)?;
    put_text(entry.generation, out)?;
    if let Some(module) = entry.module {
        put_text(module, out)?;
    }
    if known == 0 {
        put_text(entry.auth_method, out)?;
    }
    if let Some(origin) = &entry.origin {
        put_text(origin.outbox, out)?;
        out.extend_from_slice(&origin.number.to_le_bytes());
    }
    wire::record::encode(entry.message, out);
    Ok(())
}

/// Adds what is known only when the event has its place.
pub(super) fn place(record: &mut [u8], sequence: u64, time_ms: u64, staged: u32) {
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = record.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(SEQUENCE_AT, &sequence.to_le_bytes());
    put(TIME_AT, &time_ms.to_le_bytes());
    put(STAGED_AT, &staged.to_le_bytes());
}

/// What a record says about its event.
#[derive(Debug, PartialEq)]
pub(super) struct Head<'a> {
    pub(super) partition: u32,
    pub(super) sequence: u64,
    pub(super) time_ms: u64,
    pub(super) staged: u32,
    pub(super) device: &'a str,
    pub(super) generation: &'a str,
    pub(super) module: Option<&'a str>,
    pub(super) auth_method: &'a str,
    pub(super) origin: Option<Origin<'a>>,
    /// Where the message begins.
    message_at: usize,
}

/// The partition alone: what a reader of another one needs to pass by.
pub(super) fn partition(record: &[u8]) -> Option<u32> {
    record.get(2..4)?.try_into().ok().map(u16::from_le_bytes).map(u32::from)
}

/// Reads what [`encode`] and [`place`] wrote.
///
/// # Errors
/// `JournalCorrupt` when the bytes are not such a record, `JournalVersion` when a newer version wrote them.
pub(super) fn head(record: &[u8]) -> Result<Head<'_>> {
    match record.first() {
        Some(&VERSION) => parse(record).ok_or_else(corrupt),
        Some(&newer) if newer > VERSION => {
            let text = "an event was stored by a newer version of Whimbrel";
            Err(Error::new(ErrorKind::JournalVersion, "events.read", text).with("version", newer))
        }
        _ => Err(corrupt()),
    }
}

fn parse(record: &[u8]) -> Option<Head<'_>> {
    let mut rest = record.get(1..)?;
    let [flags] = take(&mut rest)?;
    let partition = u32::from(u16::from_le_bytes(take(&mut rest)?));
    let sequence = u64::from_le_bytes(take(&mut rest)?);
    let time_ms = u64::from_le_bytes(take(&mut rest)?);
    let staged = u32::from_le_bytes(take(&mut rest)?);
    let device = text(&mut rest)?;
    let generation = text(&mut rest)?;
    let module = if flags & HAS_MODULE == 0 { None } else { Some(text(&mut rest)?) };
    let auth_method = match usize::from(flags >> 4) {
        0 => text(&mut rest)?,
        known => AUTH_METHODS.get(known - 1)?,
    };
    let origin = if flags & HAS_ORIGIN == 0 {
        None
    } else {
        let outbox = text(&mut rest)?;
        let lane = if flags & ALERT == 0 { Lane::Telemetry } else { Lane::Alert };
        Some(Origin { outbox, lane, number: u64::from_le_bytes(take(&mut rest)?) })
    };
    let message_at = record.len() - rest.len();
    Some(Head {
        partition,
        sequence,
        time_ms,
        staged,
        device,
        generation,
        module,
        auth_method,
        origin,
        message_at,
    })
}

/// Makes events of records. Texts that repeat share their memory.
pub(super) struct Decoder {
    known: [Option<Arc<str>>; 64],
}

impl Default for Decoder {
    fn default() -> Self {
        Self { known: [const { None }; 64] }
    }
}

impl Decoder {
    /// The event in `record`, which the journal keeps under `offset`.
    pub(super) fn event(&mut self, offset: u64, record: &Bytes) -> Result<Event> {
        let head = head(record)?;
        Ok(Event {
            partition: head.partition,
            sequence: head.sequence,
            offset,
            enqueued_at: UNIX_EPOCH + Duration::from_millis(head.time_ms),
            device: self.shared(head.device),
            module: head.module.map(|module| self.shared(module)),
            generation: self.shared(head.generation),
            auth_method: self.shared(head.auth_method),
            record: record.slice(head.message_at..),
        })
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        let slot = fnv1a(text.as_bytes()) as usize % self.known.len();
        let Some(slot) = self.known.get_mut(slot) else { return text.into() };
        match slot {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::clone(slot.insert(text.into())),
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| {
        let text = "an id of the sender is over 65,535 bytes";
        Error::new(ErrorKind::InvalidArgument, "events.append", text)
    })?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(u16::from_le_bytes(take(rest)?));
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

fn corrupt() -> Error {
    Error::new(ErrorKind::JournalCorrupt, "events.read", "a stored event cannot be read")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use whimbrel::Message;

    use super::*;

    fn entry<'a>(message: &'a Message, auth_method: &'a str, origin: Option<Origin<'a>>) -> Entry<'a> {
        Entry { partition: 3, device: "d", module: None, generation: "7", auth_method, message, origin }
    }

    fn encoded(entry: &Entry<'_>) -> Vec<u8> {
        let mut record = Vec::new();
        encode(entry, &mut record).unwrap();
        place(&mut record, 258, 772, 6);
        record
    }

    /// What data folders hold: changing it needs a new version.
    #[test]
    fn the_form_is_pinned() {
        let message = Message::telemetry("hi");
        let mut tail = Vec::new();
        wire::record::encode(&message, &mut tail);

        let known = encoded(&entry(&message, AUTH_METHODS[1], None));
        let mut expected = vec![1, 0x20, 3, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0];
        expected.extend([1, 0, b'd', 1, 0, b'7']);
        expected.extend(&tail);
        assert_eq!(known, expected);

        let origin = Origin { outbox: "o", lane: Lane::Alert, number: 5 };
        let full = encoded(&Entry { module: Some("m"), ..entry(&message, "x", Some(origin)) });
        let mut expected = vec![1, 0x07, 3, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0];
        expected.extend([1, 0, b'd', 1, 0, b'7', 1, 0, b'm', 1, 0, b'x', 1, 0, b'o', 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(&tail);
        assert_eq!(full, expected);
    }

    #[test]
    fn known_methods_are_pinned() {
        let all = AUTH_METHODS.concat();
        assert_eq!((AUTH_METHODS.len(), fnv1a(all.as_bytes())), (5, PINNED_METHODS));
        let first = AUTH_METHODS[..3].concat();
        assert_eq!(fnv1a(first.as_bytes()), PINNED_FIRST_METHODS);
    }

    /// Those that were there from the beginning.
    const PINNED_FIRST_METHODS: u64 = 17_657_577_693_358_232_780;
    const PINNED_METHODS: u64 = 8_708_569_499_004_714_495;

    #[test]
    fn every_cut_is_noticed() {
        let message = Message::telemetry("");
        let origin = Origin { outbox: "outbox", lane: Lane::Telemetry, number: 5 };
        let record = encoded(&Entry { module: Some("m"), ..entry(&message, "x", Some(origin)) });
        let message_at = head(&record).unwrap().message_at;
        for end in 0..message_at {
            assert!(head(&record[..end]).is_err(), "cut at {end}");
        }
        let kind = |record: &[u8]| head(record).unwrap_err().kind();
        assert_eq!(kind(&[VERSION + 1]), ErrorKind::JournalVersion);
        assert_eq!(kind(&[0]), ErrorKind::JournalCorrupt);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let message = Message::telemetry("");
        let long = "x".repeat(65_536);
        let error = encode(&entry(&message, &long, None), &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            partition in 0_u32..32, sequence: u64, time_ms: u64, staged: u32, device: String, generation: String,
            module: Option<String>, auth_method in "[a-z]{0,20}", outbox: Option<String>, number: u64,
            alert: bool, known in 0_usize..4,
        ) {
            let auth_method = AUTH_METHODS.get(known).copied().unwrap_or(&auth_method);
            let lane = if alert { Lane::Alert } else { Lane::Telemetry };
            let origin = outbox.as_deref().map(|outbox| Origin { outbox, lane, number });
            let message = Message::telemetry("body");
            let module = module.as_deref();
            let (device, generation) = (&*device, &*generation);
            let entry = Entry { partition, device, module, generation, auth_method, message: &message, origin };
            let mut record = Vec::new();
            encode(&entry, &mut record).unwrap();
            place(&mut record, sequence, time_ms, staged);
            prop_assert_eq!(super::partition(&record), Some(partition));
            let head = head(&record).unwrap();
            let message_at = head.message_at;
            let expected =
                Head { partition, sequence, time_ms, staged, device, generation, module, auth_method, origin, message_at };
            prop_assert_eq!(&head, &expected);
            prop_assert_eq!(wire::record::decode(Bytes::copy_from_slice(&record[message_at..])).unwrap(), message);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, version: bool) {
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = VERSION;
            }
            let _ = head(&bytes);
            let _ = partition(&bytes);
        }
    }
}
