//! Lock tokens.

use std::fmt;

use whimbrel::{Error, ErrorKind, Result};

/// Names one delivery of a command, or of a feedback message. A GUID; a new one for each delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockToken([u8; 16]);

impl LockToken {
    /// A new one, random.
    pub(super) fn generate() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Internal, "commands.lock", "the system has no random numbers to give")
                .caused_by(error)
        })?;
        // Version 4, variant 1: what generators of random GUIDs write.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// The bytes in .NET's order (the first three fields little-endian), as they stand in an AMQP delivery tag.
    pub fn to_bytes_le(self) -> [u8; 16] {
        swapped(self.0)
    }

    /// The token in a delivery tag; `None` unless it is 16 bytes long.
    pub fn from_bytes_le(bytes: &[u8]) -> Option<Self> {
        Some(Self(swapped(bytes.try_into().ok()?)))
    }

    /// The token in a text: a GUID, in quotes or not, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = match text.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None => text,
        };
        let mut bytes = [0; 16];
        let mut filled = bytes.iter_mut();
        let groups = text.split('-').zip(GROUPS);
        if text.split('-').count() != GROUPS.len() {
            return None;
        }
        for (group, length) in groups {
            if group.len() != 2 * length {
                return None;
            }
            for pair in group.as_bytes().chunks_exact(2) {
                let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
                let (high, low) = (digit(pair.first())?, digit(pair.last())?);
                *filled.next()? = u8::try_from(high << 4 | low).ok()?;
            }
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for LockToken {
    /// As a GUID in lower case, without braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter();
        for (index, length) in GROUPS.into_iter().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            for byte in rest.by_ref().take(length) {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of each group of a GUID's text.
const GROUPS: [usize; 5] = [4, 2, 2, 2, 6];

/// From the order of the text to .NET's, and back.
fn swapped(bytes: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let mut swapped = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(tail) = swapped.get_mut(8..) {
        tail.copy_from_slice(&rest);
    }
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_each_form() {
        for _ in 0..100 {
            let token = LockToken::generate().unwrap();
            assert_eq!(LockToken::from_bytes_le(&token.to_bytes_le()), Some(token));
            assert_eq!(LockToken::parse(&token.to_string()), Some(token));
            assert_eq!(LockToken::parse(&format!("\"{token}\"")), Some(token));
            assert_eq!(LockToken::parse(&token.to_string().to_uppercase()), Some(token));
            assert_eq!(&token.to_string()[14..15], "4");
        }
    }

    #[test]
    fn the_first_three_fields_are_little_endian_in_bytes() {
        let token = LockToken::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(
            token.to_bytes_le(),
            [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        assert_eq!(token.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn what_is_no_guid_is_no_token() {
        for text in [
            "",
            "\"\"",
            "\"",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233-4455-6677-8899-aabbccddeeff-",
            "00112233445566778899aabbccddeeff",
            "0011223-34455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeegg",
            "+0112233-4455-6677-8899-aabbccddeeff",
            "\"00112233-4455-6677-8899-aabbccddeeff",
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "00112233-4455-6677-8899-aabbccddeeä",
        ] {
            assert_eq!(LockToken::parse(text), None, "{text}");
        }
        assert_eq!(LockToken::from_bytes_le(&[0; 15]), None);
        assert_eq!(LockToken::from_bytes_le(&[0; 17]), None);
    }
}
