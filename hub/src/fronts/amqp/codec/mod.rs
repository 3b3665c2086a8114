//! Bytes to frames and back. Framing and transfers are written by hand, everything else by the AMQP crates.
//!
//! Lists are written in full, with `null` for what is not set at their end: some clients index them without looking at
//! their length.

mod scan;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::{
    messaging::{Body, Message, message::__private::Serializable, message::DecodeIntoMessage},
    performatives::Performative,
    primitives::Value,
};
use serde::{Serialize, de::DeserializeOwned};
use whimbrel::wire::amqp::AmqpMessage;

use self::scan::{check_values, value_length};

/// Every peer can take frames of this size.
pub(super) const SMALLEST_FRAME: usize = 512;
/// Size, data offset, type and channel.
pub(super) const FRAME_HEADER: usize = 8;
/// First bytes of a connection: AMQP itself, version 1.0.0.
pub(super) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// First bytes of a connection: the security layer.
pub(super) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// Not AMQP, or such that no honest peer would send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameType {
    Amqp = 0,
    Sasl = 1,
}

/// A frame as it arrived.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) channel: u16,
    /// Empty in a heartbeat.
    pub(super) body: Bytes,
}

/// Takes the first frame out of `buffer`; `None` while it is not whole.
pub(super) fn take_frame(
    buffer: &mut BytesMut,
    expected: FrameType,
    largest: usize,
) -> Result<Option<Frame>, Malformed> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let [a, b, c, d, offset, kind, e, f] = *header;
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| Malformed)?;
    let offset = usize::from(offset) * 4;
    if size > largest || !(FRAME_HEADER..=size).contains(&offset) || kind != expected as u8 {
        return Err(Malformed);
    }
    if buffer.len() < size {
        return Ok(None);
    }
    let mut body = buffer.split_to(size).freeze();
    body.advance(offset);
    Ok(Some(Frame { channel: u16::from_be_bytes([e, f]), body }))
}

/// The performative of a frame, and what follows it.
pub(super) fn read_performative(mut body: Bytes) -> Result<(Performative, Bytes), Malformed> {
    let length = value_length(&body)?;
    let performative = serde_amqp::from_slice(body.get(..length).ok_or(Malformed)?).map_err(|_| Malformed)?;
    body.advance(length);
    Ok((performative, body))
}

/// A single value, such as a frame of the security layer.
pub(super) fn read_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if value_length(bytes)? != bytes.len() {
        return Err(Malformed);
    }
    serde_amqp::from_slice(bytes).map_err(|_| Malformed)
}

/// The sections of a message.
pub(super) fn read_message(bytes: &[u8]) -> Result<AmqpMessage, Malformed> {
    check_values(bytes)?;
    let reader = serde_amqp::read::SliceReader::new(bytes);
    Body::<Value>::decode_message_from_reader(reader).map_err(|_| Malformed)
}

/// A message as it travels.
pub(super) fn encode_message(message: &AmqpMessage) -> Result<Vec<u8>, serde_amqp::Error> {
    serde_amqp::to_vec(&Serializable(message))
}

/// As [`encode_message`], for a body that is one value.
pub(super) fn encode_value<B>(message: Message<B>) -> Result<Vec<u8>, serde_amqp::Error>
where
    Serializable<Message<B>>: Serialize,
{
    serde_amqp::to_vec(&Serializable(message))
}

/// Writes a frame that only shows the hub is there.
pub(super) fn write_heartbeat(out: &mut BytesMut) {
    out.put_slice(&[0, 0, 0, 8, 2, FrameType::Amqp as u8, 0, 0]);
}

/// Writes a frame that is no transfer. `fields` is how many its list has when it is complete.
pub(super) fn write_frame(
    out: &mut BytesMut,
    kind: FrameType,
    channel: u16,
    performative: &impl Serialize,
    fields: u8,
) -> Result<(), serde_amqp::Error> {
    let encoded = serde_amqp::to_vec(performative)?;
    let start = begin_frame(out, kind, channel);
    match split_list(&encoded) {
        Some((descriptor, count, elements)) => {
            let missing = fields.saturating_sub(count);
            let size = elements.len() + usize::from(missing);
            out.put_slice(descriptor);
            match u8::try_from(size + 1) {
                Ok(size) => out.put_slice(&[0xc0, size, count.max(fields)]),
                Err(_) => {
                    out.put_u8(0xd0);
                    put_length(out, size + 4);
                    out.put_u32(count.max(fields).into());
                }
            }
            out.put_slice(elements);
            out.put_bytes(NULL, missing.into());
        }
        None => out.put_slice(&encoded),
    }
    end_frame(out, start);
    Ok(())
}

/// What is the same in all frames of a delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransferHead<'a> {
    pub(super) channel: u16,
    pub(super) handle: u32,
    /// Number, tag and format; only the first frame has them.
    pub(super) delivery: Option<(u32, &'a [u8], u32)>,
    pub(super) settled: bool,
}

/// Most bytes of the payload that fit into one frame of `largest` bytes.
pub(super) fn transfer_room(head: &TransferHead<'_>, largest: usize) -> usize {
    let tag = head.delivery.map_or(0, |(_, tag, _)| tag.len());
    largest.saturating_sub(FRAME_HEADER + TRANSFER_BYTES + tag)
}

/// Writes one frame of a delivery.
pub(super) fn write_transfer(out: &mut BytesMut, head: &TransferHead<'_>, more: bool, payload: &[u8]) {
    let start = begin_frame(out, FrameType::Amqp, head.channel);
    out.put_slice(&[0x00, 0x53, 0x14, 0xc0, 0, 11]);
    let list = out.len() - 1;
    put_uint(out, head.handle);
    match head.delivery {
        Some((id, tag, format)) => {
            put_uint(out, id);
            out.put_u8(0xa0);
            // Tags are at most 32 bytes long.
            out.put_u8(u8::try_from(tag.len()).unwrap_or(u8::MAX));
            out.put_slice(tag.get(..tag.len().min(u8::MAX.into())).unwrap_or_default());
            put_uint(out, format);
        }
        None => out.put_bytes(NULL, 3),
    }
    // Settled, more, receiver's settle mode, state, resume, aborted, batchable.
    out.put_slice(&[
        boolean(head.settled),
        boolean(more),
        NULL,
        NULL,
        boolean(false),
        boolean(false),
        boolean(true),
    ]);
    let size = out.len() - list;
    if let Some(slot) = out.get_mut(list - 1) {
        *slot = u8::try_from(size).unwrap_or(u8::MAX);
    }
    out.put_slice(payload);
    end_frame(out, start);
}

fn begin_frame(out: &mut BytesMut, kind: FrameType, channel: u16) -> usize {
    let start = out.len();
    out.put_slice(&[0, 0, 0, 0, 2, kind as u8]);
    out.put_u16(channel);
    start
}

fn end_frame(out: &mut BytesMut, start: usize) {
    let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(slot) = out.get_mut(start..start + size.len()) {
        slot.copy_from_slice(&size);
    }
}

/// Descriptor, number of elements and elements of a described list.
fn split_list(encoded: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (descriptor, list) = encoded.split_at_checked(3)?;
    if descriptor.first_chunk() != Some(&[0x00, 0x53]) {
        return None;
    }
    match list {
        [0x45] => Some((descriptor, 0, &[])),
        [0xc0, _, count, elements @ ..] => Some((descriptor, *count, elements)),
        [0xd0, _, _, _, _, 0, 0, 0, count, elements @ ..] => Some((descriptor, *count, elements)),
        _ => None,
    }
}

fn put_uint(out: &mut BytesMut, number: u32) {
    match u8::try_from(number) {
        Ok(0) => out.put_u8(0x43),
        Ok(number) => out.put_slice(&[0x52, number]),
        Err(_) => {
            out.put_u8(0x70);
            out.put_u32(number);
        }
    }
}

fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

const fn boolean(value: bool) -> u8 {
    if value { 0x41 } else { 0x42 }
}

const NULL: u8 = 0x40;
/// The performative of a transfer without its tag, at most: descriptor 3, list 3, handle and number and format 5 each,
/// tag 2, the others 7.
const TRANSFER_BYTES: usize = 30;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
mod tests {
    use fe2o3_amqp_types::{
        definitions::Handle,
        performatives::{Close, Detach, Transfer},
    };

    use super::*;

    fn frames(mut out: BytesMut) -> Vec<Frame> {
        std::iter::from_fn(|| take_frame(&mut out, FrameType::Amqp, 1 << 20).unwrap()).collect()
    }

    #[test]
    fn lists_are_written_in_full_and_read_back() {
        let mut out = BytesMut::new();
        let close = Performative::Close(Close { error: None });
        let detach = Performative::Detach(Detach { handle: Handle(300), closed: true, error: None });
        write_frame(&mut out, FrameType::Amqp, 7, &close, 1).unwrap();
        write_frame(&mut out, FrameType::Amqp, 8, &detach, 3).unwrap();
        write_heartbeat(&mut out);
        let [first, second, third]: [Frame; 3] = frames(out).try_into().unwrap();
        assert_eq!((first.channel, second.channel), (7, 8));
        assert_eq!(&first.body[..], [0x00, 0x53, 0x18, 0xc0, 2, 1, NULL]);
        assert_eq!(second.body[5], 3, "number of elements");
        assert_eq!(read_performative(first.body).unwrap().0, close);
        assert_eq!(read_performative(second.body).unwrap().0, detach);
        assert!(third.body.is_empty());
    }

    #[test]
    fn transfers_by_hand_are_what_the_library_reads() {
        for (handle, delivery, settled, more) in [
            (0, Some((0, &b"t"[..], 0)), false, false),
            (300, Some((70_000, &[9; 32][..], 0x8001_3700)), true, true),
            (1, None, false, true),
        ] {
            let head = TransferHead { channel: 3, handle, delivery, settled };
            let mut out = BytesMut::new();
            let room = transfer_room(&head, 512);
            write_transfer(&mut out, &head, more, &vec![5; room]);
            assert!(out.len() <= 512, "{}", out.len());
            let frame = take_frame(&mut out, FrameType::Amqp, 512).unwrap().unwrap();
            assert_eq!(frame.body[5], 11, "all fields are there");
            let (performative, payload) = read_performative(frame.body).unwrap();
            let Performative::Transfer(transfer) = performative else { panic!("{performative:?}") };
            let expected = Transfer {
                handle: Handle(handle),
                delivery_id: delivery.map(|(id, ..)| id),
                delivery_tag: delivery.map(|(_, tag, _)| tag.to_vec().into()),
                message_format: delivery.map(|(_, _, format)| format),
                settled: Some(settled),
                more,
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: true,
            };
            assert_eq!(transfer, expected);
            assert_eq!(payload.len(), room);
        }
    }

    #[test]
    fn frames_wait_until_whole_and_lies_are_refused() {
        let mut out = BytesMut::new();
        let head = TransferHead { channel: 0, handle: 0, delivery: None, settled: false };
        write_transfer(&mut out, &head, false, b"payload");
        for cut in 0..out.len() {
            let mut part = BytesMut::from(&out[..cut]);
            assert!(take_frame(&mut part, FrameType::Amqp, 512).unwrap().is_none());
        }
        for lie in [
            [0, 0, 0, 7, 2, 0, 0, 0],
            [0, 0, 2, 1, 2, 0, 0, 0],
            [0, 0, 0, 8, 1, 0, 0, 0],
            [0, 0, 0, 8, 3, 0, 0, 0],
            [0, 0, 0, 8, 2, 1, 0, 0],
        ] {
            assert!(take_frame(&mut BytesMut::from(&lie[..]), FrameType::Amqp, 512).is_err(), "{lie:?}");
        }
    }
}
