//! Numbers as bytes, for the small records that outbox and inbox write.

/// Appends `value` in groups of seven bits, the lowest first.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a difference, small ones of either sign in one byte.
pub(crate) fn put_difference(from: u64, to: u64, out: &mut Vec<u8>) {
    let difference = to.wrapping_sub(from) as i64;
    put_varint(((difference << 1) ^ (difference >> 63)) as u64, out);
}

/// Appends the length and the bytes.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Takes values off the front of a slice; `None` when they are not there.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn difference(&mut self, from: u64) -> Option<u64> {
        let folded = self.varint()?;
        Some(from.wrapping_add((folded >> 1) ^ (folded & 1).wrapping_neg()))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(value: u64, from: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            put_difference(from, value, &mut out);
            put_bytes(&bytes, &mut out);
            let mut cursor = Cursor(&out);
            prop_assert_eq!(cursor.varint(), Some(value));
            prop_assert_eq!(cursor.difference(from), Some(value));
            prop_assert_eq!(cursor.bytes(), Some(&bytes[..]));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor(&bytes);
            while cursor.varint().is_some() && cursor.bytes().is_some() && cursor.difference(7).is_some() {}
        }
    }
}
