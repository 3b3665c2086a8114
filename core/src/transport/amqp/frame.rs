//! Frames: AMQP 1.0, part 2, section 2.3. A frame is eight bytes of header, one performative, and what a transfer
//! carries behind it.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use serde_amqp::{de::from_slice, ser::Serializer};

use crate::{Error, ErrorKind, Result};

/// Largest frame we take, and say so.
pub(super) const MAX_FRAME: usize = 64 * 1024;
/// Smallest limit a server may set; AMQP 1.0, section 2.4.1.
pub(super) const MIN_MAX_FRAME: usize = 512;
/// Bytes before the performative.
pub(super) const HEADER: usize = 8;

/// What kind of frame it is.
pub(super) mod kind {
    pub(in super::super) const AMQP: u8 = 0;
    pub(in super::super) const SASL: u8 = 1;
}

/// Descriptors of performatives.
pub(super) mod code {
    pub(in super::super) const OPEN: u64 = 0x10;
    pub(in super::super) const BEGIN: u64 = 0x11;
    pub(in super::super) const ATTACH: u64 = 0x12;
    pub(in super::super) const FLOW: u64 = 0x13;
    pub(in super::super) const TRANSFER: u64 = 0x14;
    pub(in super::super) const DISPOSITION: u64 = 0x15;
    pub(in super::super) const DETACH: u64 = 0x16;
    pub(in super::super) const END: u64 = 0x17;
    pub(in super::super) const CLOSE: u64 = 0x18;
    pub(in super::super) const SASL_MECHANISMS: u64 = 0x40;
    pub(in super::super) const SASL_OUTCOME: u64 = 0x44;
}

/// A frame in the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) channel: u16,
    /// All of it behind the header.
    pub(super) body: &'a [u8],
    /// How many bytes of the input it takes.
    pub(super) length: usize,
}

/// The first frame of the input, when it is all there.
pub(super) fn first(input: &[u8]) -> Result<Option<Frame<'_>>> {
    let Some(&[a, b, c, d, doff, kind, high, low]) = input.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(violation("the server sent a frame over the limit it was told (section 2.3.1)"));
    }
    let start = usize::from(doff) * 4;
    if start < HEADER || start > length {
        return Err(violation("the server sent a malformed frame (section 2.3.1)"));
    }
    let Some(whole) = input.get(..length) else { return Ok(None) };
    let channel = u16::from_be_bytes([high, low]);
    Ok(Some(Frame { kind, channel, body: whole.get(start..).unwrap_or_default(), length }))
}

impl<'a> Frame<'a> {
    /// The descriptor of the performative, its bytes, and what follows it.
    pub(super) fn performative(self) -> Result<(u64, &'a [u8], &'a [u8])> {
        let (code, length) = described(self.body)
            .ok_or_else(|| violation("the server sent a frame without a performative (section 2.7)"))?;
        let (performative, rest) = self.body.split_at(length);
        Ok((code, performative, rest))
    }
}

/// Descriptor and length in bytes of the described list that `bytes` begin with.
fn described(bytes: &[u8]) -> Option<(u64, usize)> {
    let (code, list) = match bytes {
        [0, 0x53, code, rest @ ..] => (u64::from(*code), rest),
        [0, 0x80, rest @ ..] => {
            let (code, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*code), rest)
        }
        _ => return None,
    };
    let list_length = match list {
        [0x45, ..] => 1,
        [0xc0, size, ..] => 2 + usize::from(*size),
        [0xd0, a, b, c, d, ..] => 5_usize.checked_add(u32::from_be_bytes([*a, *b, *c, *d]) as usize)?,
        _ => return None,
    };
    (list_length <= list.len()).then_some((code, bytes.len() - list.len() + list_length))
}

/// Reads a performative.
pub(super) fn read<'a, T: Deserialize<'a>>(performative: &'a [u8]) -> Result<T> {
    from_slice(performative).map_err(|error| {
        violation("the server sent a malformed performative (section 2.7)").caused_by(error.to_string())
    })
}

/// Appends a frame of AMQP with a performative and nothing behind it.
pub(super) fn put(out: &mut BytesMut, channel: u16, performative: &impl Serialize) {
    put_frame(out, kind::AMQP, channel, performative, &[]);
}

/// Appends a frame with a performative and what it carries.
pub(super) fn put_frame(
    out: &mut BytesMut,
    kind: u8,
    channel: u16,
    performative: &impl Serialize,
    payload: &[u8],
) {
    let start = out.len();
    out.put_slice(&[0, 0, 0, 0, 2, kind]);
    out.put_u16(channel);
    append(out, performative);
    out.put_slice(payload);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(size) = out.get_mut(start..start + 4) {
        size.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a frame that holds nothing and only shows that we are there.
pub(super) fn put_empty(out: &mut BytesMut) {
    out.put_slice(&[0, 0, 0, 8, 2, kind::AMQP, 0, 0]);
}

/// Appends a value as AMQP writes it.
pub(super) fn append(out: &mut BytesMut, value: &impl Serialize) {
    let mut serializer = Serializer::from(out.writer());
    // Memory takes everything, and our own types have a form.
    if let Err(error) = value.serialize(&mut serializer) {
        debug_assert!(false, "{error}");
    }
}

pub(super) fn violation(message: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, "device.connect", message)
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::performatives::{Close, Transfer};

    use super::*;

    #[test]
    fn a_frame_comes_back_with_what_it_carries() {
        let mut out = BytesMut::new();
        put(&mut out, 3, &Close { error: None });
        let transfer = Transfer {
            handle: 7.into(),
            delivery_id: Some(1),
            delivery_tag: Some(b"t".to_vec().into()),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: true,
        };
        put_frame(&mut out, kind::AMQP, 4, &transfer, b"payload");
        put_empty(&mut out);

        let close = first(&out).unwrap().unwrap();
        assert_eq!((close.channel, close.performative().unwrap().0), (3, code::CLOSE));
        let rest = &out[close.length..];
        let frame = first(rest).unwrap().unwrap();
        let (descriptor, performative, payload) = frame.performative().unwrap();
        assert_eq!((descriptor, payload), (code::TRANSFER, &b"payload"[..]));
        assert_eq!(read::<Transfer>(performative).unwrap(), transfer);
        for cut in 0..frame.length {
            assert!(first(&rest[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let empty = first(&rest[frame.length..]).unwrap().unwrap();
        assert_eq!((empty.body.len(), empty.length), (0, 8));
    }

    #[test]
    fn what_is_no_frame_is_named_so() {
        for bytes in [
            &[0, 0, 0, 7, 2, 0, 0, 0][..],
            &[0, 0, 0, 8, 1, 0, 0, 0],
            &[0, 0, 0, 8, 3, 0, 0, 0],
            &[0xff, 0, 0, 8, 2, 0, 0, 0],
            b"HTTP/1.1 400 Bad Request",
        ] {
            assert_eq!(first(bytes).unwrap_err().kind(), ErrorKind::Protocol, "{bytes:?}");
        }
        for body in [&b""[..], b"\x00", b"\x00\x53\x10", b"\x00\x53\x10\xc0\x05\x00", b"\x00\x53\x10\x40"] {
            let frame = Frame { kind: 0, channel: 0, body, length: 0 };
            assert_eq!(frame.performative().unwrap_err().kind(), ErrorKind::Protocol, "{body:?}");
        }
    }
}
