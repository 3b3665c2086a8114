//! MQTT packets as bytes: what both protocol versions share.
//!
//! The rare packets are written and read by rumqttc's codec. PUBLISH and PUBACK, which come by the thousand, are
//! written into and read out of the connection's buffers in place.

use bytes::BufMut;

use crate::{Error, ErrorKind};

/// Largest packet we take: a full message with the longest topic, and room for properties.
pub(super) const INCOMING_LIMIT: usize = 512 * 1024;

/// First bytes of packets, flags included where they are fixed.
pub(super) mod kind {
    pub(in super::super) const CONNACK: u8 = 0x20;
    pub(in super::super) const PUBLISH: u8 = 0x30;
    pub(in super::super) const PUBLISH_QOS1: u8 = 0x32;
    pub(in super::super) const PUBACK: u8 = 0x40;
    pub(in super::super) const SUBSCRIBE: u8 = 0x82;
    pub(in super::super) const SUBACK: u8 = 0x90;
    pub(in super::super) const PINGRESP: u8 = 0xd0;
    pub(in super::super) const DISCONNECT: u8 = 0xe0;
}

/// PINGREQ, whole.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT for the usual goodbye, whole; the same on both versions.
pub(super) const GOODBYE: [u8; 2] = [kind::DISCONNECT, 0];

/// A packet that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Type and flags.
    pub(super) first: u8,
    /// Everything, for rumqttc's codec.
    pub(super) whole: &'a [u8],
    /// Everything after the fixed header.
    pub(super) body: &'a [u8],
}

/// An error about what the server sent; `rule` names the clause.
pub(super) fn violation(rule: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, "device.receive", rule)
}

/// The first packet in `input`; none when it has not all arrived.
pub(super) fn first(input: &[u8]) -> Result<Option<Frame<'_>>, Error> {
    let Some((first, header, length)) = fixed_header(input)? else { return Ok(None) };
    Ok(input.get(..header + length).and_then(|whole| {
        let body = whole.get(header..)?;
        Some(Frame { first, whole, body })
    }))
}

/// First byte, length of the fixed header, length of the rest.
fn fixed_header(input: &[u8]) -> Result<Option<(u8, usize, usize)>, Error> {
    let Some((first, rest)) = input.split_first() else { return Ok(None) };
    let mut length = 0usize;
    for (index, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if length > INCOMING_LIMIT {
                return Err(violation("the server sent a packet over the size we announced [MQTT-3.1.2-24]"));
            }
            return Ok(Some((*first, index + 2, length)));
        }
    }
    match rest.len() {
        0..4 => Ok(None),
        _ => Err(violation("the server sent a remaining length of more than four bytes (section 2.1.4)")),
    }
}

/// Writes a variable byte integer.
pub(super) fn put_length(out: &mut impl BufMut, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

/// How many bytes [`put_length`] writes.
pub(super) fn length_of_length(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Writes a string; the caller has checked that it is not longer than 65,535 bytes, what is over is cut.
pub(super) fn put_string(out: &mut impl BufMut, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

/// Reads the pieces of a packet, borrowing; `None` when the packet ends too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.bytes(usize::from(length))?).ok()
    }

    /// A variable byte integer.
    pub(super) fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 262_144, INCOMING_LIMIT] {
            let mut bytes = vec![0x30];
            put_length(&mut bytes, length);
            assert_eq!(bytes.len(), 1 + length_of_length(length));
            assert_eq!(fixed_header(&bytes).unwrap(), Some((0x30, bytes.len(), length)));
            assert_eq!(Reader(&bytes[1..]).length(), Some(length));
        }
    }

    #[test]
    fn a_packet_is_taken_when_it_is_whole_and_not_before() {
        let bytes = [0x40, 2, 0, 7, 0xd0, 0];
        for cut in 0..4 {
            assert_eq!(first(&bytes[..cut]).unwrap(), None);
        }
        let frame = first(&bytes).unwrap().unwrap();
        assert_eq!(frame, Frame { first: 0x40, whole: &bytes[..4], body: &[0, 7] });
        let frame = first(&bytes[4..]).unwrap().unwrap();
        assert_eq!(frame, Frame { first: 0xd0, whole: &bytes[4..], body: &[] });
    }

    #[test]
    fn endless_and_oversized_packets_are_violations() {
        for bytes in [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &[0x30, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(first(bytes).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }
}
