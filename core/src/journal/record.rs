//! How one record lies in a segment.
//!
//! ```text
//! 0   4       CRC32C, seeded with the segment's salt, of everything behind it up to the end of the payload
//! 4   4       bytes of payload
//! 8   8       (kind << 56 | number) xor the segment's salt
//! 16  n       payload, then zeros up to a multiple of 8
//! ```
//!
//! All numbers are little endian. The salt is random and secret, so no payload can look like a record, and what an
//! earlier use of the same file left behind never does.

use super::{Kind, Lsn};

/// Bytes in front of the payload.
pub(super) const HEAD: usize = 16;
/// Records start at multiples of this.
pub(super) const ALIGN: u64 = 8;
/// Set in the kind of a record that is the first of its commit in its segment.
const OPENS_COMMIT: u8 = 0x80;
/// A number has 56 bits.
const NUMBER: u64 = (1 << 56) - 1;

/// Which of the words of a head has the number.
pub(super) const NUMBER_WORD: usize = 1;

/// What a record is, to the journal itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// Of the owner. Its number is its own.
    Data = 1,
    /// Of the owner. Its number is that of the next data record.
    Note = 2,
    /// The payload is the number of the last data record given up. Its number is that of the next data record.
    Trim = 3,
}

impl Tag {
    fn of(kind: u8) -> Option<Self> {
        match kind & !OPENS_COMMIT {
            1 => Some(Self::Data),
            2 => Some(Self::Note),
            3 => Some(Self::Trim),
            _ => None,
        }
    }
}

/// The number in the second word of a head, freed of its salt, if the kind beside it is one.
pub(super) fn number_of(word: u64) -> Option<Lsn> {
    Tag::of((word >> 56) as u8).map(|_| word & NUMBER)
}

impl From<Kind> for Tag {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Data => Self::Data,
            Kind::Note => Self::Note,
        }
    }
}

/// Bytes a payload of `len` bytes takes in a segment.
pub(super) const fn framed(len: usize) -> u64 {
    (HEAD as u64 + len as u64).next_multiple_of(ALIGN)
}

/// Writes one record behind `buffer`. The payload has to be shorter than 4 GiB.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    salt: u64,
    tag: Tag,
    opens_commit: bool,
    number: Lsn,
    parts: &[&[u8]],
) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let start = buffer.len();
    let end = start + framed(len) as usize;
    buffer.reserve(end - start);
    let kind = tag as u8 | if opens_commit { OPENS_COMMIT } else { 0 };
    let mut head = [0; HEAD];
    let (_crc, rest) = head.split_at_mut(4);
    let (length, numbered) = rest.split_at_mut(4);
    length.copy_from_slice(&(len as u32).to_le_bytes());
    numbered.copy_from_slice(&((u64::from(kind) << 56 | number) ^ salt).to_le_bytes());
    buffer.extend_from_slice(&head);
    for part in parts {
        buffer.extend_from_slice(part);
    }
    if let Some((crc, covered)) = buffer.get_mut(start..).and_then(|record| record.split_at_mut_checked(4)) {
        crc.copy_from_slice(&crc32c::crc32c_append(salt as u32, covered).to_le_bytes());
    }
    buffer.resize(end, 0);
}

/// The head of a record that may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) opens_commit: bool,
    pub(super) number: Lsn,
    /// Bytes of payload.
    pub(super) len: usize,
    crc: u32,
}

impl Head {
    /// Reads the head at the start of `bytes`; `None` when this cannot be one of this salt.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (numbered, _) = rest.split_first_chunk::<8>()?;
        let numbered = u64::from_le_bytes(*numbered) ^ salt;
        let kind = (numbered >> 56) as u8;
        let tag = Tag::of(kind)?;
        Some(Self {
            tag,
            opens_commit: kind & OPENS_COMMIT != 0,
            number: numbered & NUMBER,
            len: u32::from_le_bytes(*len) as usize,
            crc: u32::from_le_bytes(*crc),
        })
    }

    /// Whether `record`, from its head to the end of its payload, is what was written.
    pub(super) fn verify(&self, record: &[u8], salt: u64) -> bool {
        record.get(4..).is_some_and(|covered| crc32c::crc32c_append(salt as u32, covered) == self.crc)
    }

    /// Bytes of the record, padding included.
    pub(super) fn framed(&self) -> u64 {
        framed(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_any_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0x1234_5678_9abc_def0, Tag::Note, true, 77, &[b"in ", b"", b"parts"]);
        assert_eq!(bytes.len() as u64, framed(8));
        let head = Head::decode(&bytes, 0x1234_5678_9abc_def0).unwrap();
        assert_eq!((head.tag, head.opens_commit, head.number, head.len), (Tag::Note, true, 77, 8));
        let exact = HEAD + head.len;
        assert!(head.verify(&bytes[..exact], 0x1234_5678_9abc_def0));
        assert_eq!(&bytes[HEAD..exact], b"in parts");
        for bit in 0..exact * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let good = Head::decode(&flipped, 0x1234_5678_9abc_def0).is_some_and(|head| {
                flipped
                    .get(..HEAD + head.len)
                    .is_some_and(|record| head.verify(record, 0x1234_5678_9abc_def0))
            });
            assert!(!good, "bit {bit}");
        }
    }

    #[test]
    fn another_salt_does_not_read_it() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 1, Tag::Data, false, 5, &[b"payload"]);
        // The number is still readable, the checksum is not.
        let head = Head::decode(&bytes, 2);
        assert!(!head.is_some_and(|head| head.verify(&bytes[..HEAD + 7], 2)));
    }
}
