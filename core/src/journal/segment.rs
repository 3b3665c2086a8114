//! Segment files: their names, and the header at both ends of each.
//!
//! ```text
//! start of the file   head (64 bytes), snapshot, zeros up to a page
//!                     records
//! end of the file     zeros, snapshot, head: the same bytes again, in the last as many pages
//! ```
//!
//! A file is prepared before it has a header: made of zeros, or taken over from a trimmed segment with everything in
//! it. It counts from the moment its header carries the number its name says.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{Disk, DiskFile, Lsn, disk::read_exact};

/// Headers, segments and writes end at multiples of this.
pub(super) const PAGE: u64 = 4096;
/// Bytes of the head.
const HEAD: usize = 64;
const MAGIC: &[u8; 8] = b"WHIMJRNL";
/// Version of the format; a greater one is refused.
pub(super) const VERSION: u32 = 1;
/// Distance of the entries of an index.
const INDEX_STRIDE: u64 = 64 * 1024;

/// Name of the file of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("segment-{number:08}")
}

/// The number in the name of a segment file.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}

/// Whether a file waits to be used as a segment.
pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-")
}

/// Name of the file that was segment `number` and waits to be used again.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:08}")
}

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the segment.
    pub(super) number: u64,
    /// Of the records.
    pub(super) salt: u64,
    /// Number of the first data record in it, if it has one.
    pub(super) first: Lsn,
    /// Last data record given up when the segment was started.
    pub(super) trimmed: Lsn,
    snapshot_len: u32,
    snapshot_crc: u32,
}

impl Header {
    /// A header for `snapshot`.
    pub(super) fn new(number: u64, salt: u64, first: Lsn, trimmed: Lsn, snapshot: &[u8]) -> Self {
        let snapshot_crc = crc32c::crc32c_append(salt as u32, snapshot);
        Self { number, salt, first, trimmed, snapshot_len: snapshot.len() as u32, snapshot_crc }
    }

    /// Bytes of the header with its snapshot, in whole pages; the copy takes as many.
    pub(super) fn block(&self) -> u64 {
        block(self.snapshot_len as usize)
    }

    fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let fields: [&[u8]; 8] = [
            MAGIC,
            &VERSION.to_le_bytes(),
            &self.snapshot_len.to_le_bytes(),
            &self.number.to_le_bytes(),
            &self.salt.to_le_bytes(),
            &self.first.to_le_bytes(),
            &self.trimmed.to_le_bytes(),
            &self.snapshot_crc.to_le_bytes(),
        ];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (target, behind) = rest.split_at_mut(field.len());
            target.copy_from_slice(field);
            rest = behind;
        }
        let (covered, crc) = bytes.split_at_mut(HEAD - 4);
        crc.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
        bytes
    }

    /// Writes the block for the start of the file behind `buffer`.
    pub(super) fn encode_first(&self, snapshot: &[u8], buffer: &mut Vec<u8>) {
        let end = buffer.len() + self.block() as usize;
        buffer.extend_from_slice(&self.encode());
        buffer.extend_from_slice(snapshot);
        buffer.resize(end, 0);
    }

    /// Writes the block for the end of the file behind `buffer`.
    pub(super) fn encode_last(&self, snapshot: &[u8], buffer: &mut Vec<u8>) {
        let padding = self.block() as usize - HEAD - snapshot.len();
        buffer.resize(buffer.len() + padding, 0);
        buffer.extend_from_slice(snapshot);
        buffer.extend_from_slice(&self.encode());
    }

    fn decode(bytes: &[u8; HEAD]) -> Decoded {
        let mut rest = bytes.as_slice();
        let mut word = |len: usize| {
            let (field, behind) = rest.split_at(len);
            rest = behind;
            field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let magic = word(8);
        let version = word(4) as u32;
        let header = Self {
            snapshot_len: word(4) as u32,
            number: word(8),
            salt: word(8),
            first: word(8),
            trimmed: word(8),
            snapshot_crc: word(4) as u32,
        };
        let (covered, crc) = bytes.split_at(HEAD - 4);
        if magic != u64::from_le_bytes(*MAGIC) || crc != crc32c::crc32c(covered).to_le_bytes() {
            return Decoded::Unreadable;
        }
        if version > VERSION { Decoded::Newer(version) } else { Decoded::Good(header) }
    }
}

/// Bytes of a header block with `snapshot` bytes of snapshot.
pub(super) const fn block(snapshot: usize) -> u64 {
    (HEAD as u64 + snapshot as u64).next_multiple_of(PAGE)
}

enum Decoded {
    Good(Header),
    Newer(u32),
    Unreadable,
}

/// What the header of a file turned out to be.
#[derive(Debug)]
pub(super) enum Loaded {
    /// The file is this segment. The snapshot is `None` when neither copy of it can be read; `damaged` says that one of
    /// the two copies is not as it was written.
    Started { header: Header, snapshot: Option<Bytes>, damaged: bool },
    /// The file was prepared for later, or its first commit was never finished.
    NotStarted,
    /// Written by a newer version of this format.
    Newer(u32),
}

/// Reads the header of the file that is named as segment `number`. The snapshot is read only when asked for.
pub(super) fn load(file: &dyn DiskFile, number: u64, with_snapshot: bool) -> io::Result<Loaded> {
    let size = file.size()?;
    if size < 2 * PAGE {
        return Ok(Loaded::NotStarted);
    }
    let mut newer = None;
    let mut read = |offset: u64| -> io::Result<Option<Header>> {
        let mut bytes = [0; HEAD];
        read_exact(file, offset, &mut bytes)?;
        Ok(match Header::decode(&bytes) {
            Decoded::Good(header) if header.number == number && 2 * header.block() <= size => Some(header),
            Decoded::Newer(version) => {
                newer = Some(version);
                None
            }
            Decoded::Good(_) | Decoded::Unreadable => None,
        })
    };
    let first = read(0)?;
    let last = if first.is_some() && !with_snapshot { first } else { read(size - HEAD as u64)? };
    let Some(header) = first.or(last) else {
        return Ok(newer.map_or(Loaded::NotStarted, Loaded::Newer));
    };
    let mut damaged = first != last;
    let mut snapshot = None;
    if with_snapshot {
        let len = u64::from(header.snapshot_len);
        for offset in [HEAD as u64, size - HEAD as u64 - len] {
            let mut bytes = vec![0; len as usize];
            read_exact(file, offset, &mut bytes)?;
            if crc32c::crc32c_append(header.salt as u32, &bytes) == header.snapshot_crc {
                snapshot.get_or_insert_with(|| Bytes::from(bytes));
            } else {
                damaged = true;
            }
        }
    }
    Ok(Loaded::Started { header, snapshot, damaged })
}

/// One segment of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    /// The file, while somebody uses it. Thousands of segments must not hold thousands of open files.
    file: Mutex<Option<Weak<dyn DiskFile>>>,
    /// `None` inside when neither copy of the header can be read.
    header: OnceLock<Option<Header>>,
    /// Where its records end; 0 while that is not known.
    end: AtomicU64,
    /// Whether the file's name is durable.
    pub(super) named: AtomicBool,
    /// Some data records and their offsets, ascending.
    index: Mutex<Vec<(Lsn, u64)>>,
}

impl Segment {
    pub(super) fn new(number: u64, size: u64) -> Self {
        Self {
            number,
            size,
            file: Mutex::new(None),
            header: OnceLock::new(),
            end: AtomicU64::new(0),
            named: AtomicBool::new(false),
            index: Mutex::new(Vec::new()),
        }
    }

    /// Says what the header is, because it was just written or read.
    pub(super) fn set_header(&self, header: Option<Header>) {
        let _ = self.header.set(header);
    }

    /// The header, read when it is not known yet; `None` when neither copy can be read.
    pub(super) fn header(&self, disk: &dyn Disk) -> io::Result<Option<Header>> {
        if let Some(header) = self.header.get() {
            return Ok(*header);
        }
        let header = match self.file(disk) {
            Ok(file) => match load(&*file, self.number, false)? {
                Loaded::Started { header, .. } => Some(header),
                Loaded::NotStarted | Loaded::Newer(_) => None,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(*self.header.get_or_init(|| header))
    }

    /// The header, if it was read or written since the journal was opened.
    pub(super) fn known_header(&self) -> Option<Header> {
        self.header.get().copied().flatten()
    }

    /// Whether it is known that neither copy of the header can be read.
    pub(super) fn is_headless(&self) -> bool {
        matches!(self.header.get(), Some(None))
    }

    /// The open file.
    pub(super) fn file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = slot.as_ref().and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = disk.open(&name(self.number), false)?;
        *slot = Some(Arc::downgrade(&file));
        Ok(file)
    }

    /// Remembers an open file.
    pub(super) fn set_file(&self, file: &Arc<dyn DiskFile>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(file));
    }

    /// Says where the records end, once no more follow.
    pub(super) fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Where the records end, or where they must end at the latest.
    pub(super) fn end(&self) -> u64 {
        match self.end.load(Ordering::Acquire) {
            0 => self.size - self.known_header().map_or(0, |header| header.block()),
            end => end,
        }
    }

    /// Remembers where data record `lsn` is, when that is worth it. Returns the offset from which on the next one is.
    pub(super) fn note(&self, lsn: Lsn, offset: u64) -> u64 {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        match index.last() {
            Some((_, last)) if offset < last + INDEX_STRIDE => last + INDEX_STRIDE,
            _ => {
                index.push((lsn, offset));
                offset + INDEX_STRIDE
            }
        }
    }

    /// A known record boundary from which `lsn` is reached by reading forward, and the data record there.
    pub(super) fn seek(&self, lsn: Lsn) -> Option<(Lsn, u64)> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let at = index.partition_point(|(entry, _)| *entry <= lsn);
        index.get(at.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryDisk;

    fn written(snapshot: &[u8]) -> (Header, Arc<dyn DiskFile>) {
        let header = Header::new(7, 0xfeed_0000_beef, 100, 42, snapshot);
        let file = MemoryDisk::default().open("x", true).unwrap();
        file.write_at(0, &vec![0; 64 * 1024]).unwrap();
        let mut bytes = Vec::new();
        header.encode_first(snapshot, &mut bytes);
        file.write_at(0, &bytes).unwrap();
        bytes.clear();
        header.encode_last(snapshot, &mut bytes);
        file.write_at(64 * 1024 - bytes.len() as u64, &bytes).unwrap();
        (header, file)
    }

    #[test]
    fn either_copy_of_the_header_is_enough() {
        for snapshot in [b"".to_vec(), vec![7; 10_000]] {
            let (header, file) = written(&snapshot);
            let wipe = vec![0x55; header.block() as usize];
            for (wiped, offset) in [(false, 0), (true, 0), (true, 64 * 1024 - header.block())] {
                let mut kept = wipe.clone();
                file.read_at(offset, &mut kept).unwrap();
                if wiped {
                    file.write_at(offset, &wipe).unwrap();
                }
                let Loaded::Started { header: loaded, snapshot: loaded_snapshot, damaged } =
                    load(&*file, 7, true).unwrap()
                else {
                    panic!("not started")
                };
                assert_eq!((loaded, loaded_snapshot.as_deref()), (header, Some(snapshot.as_slice())));
                assert_eq!(damaged, wiped);
                file.write_at(offset, &kept).unwrap();
            }
        }
    }

    #[test]
    fn a_file_of_another_number_is_not_started() {
        let (_, file) = written(b"state");
        assert!(matches!(load(&*file, 8, true).unwrap(), Loaded::NotStarted));
    }

    #[test]
    fn a_newer_format_is_told_apart() {
        let (header, file) = written(b"");
        let mut bytes = header.encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..HEAD - 4]);
        bytes[HEAD - 4..].copy_from_slice(&crc.to_le_bytes());
        file.write_at(0, &bytes).unwrap();
        file.write_at(64 * 1024 - HEAD as u64, &bytes).unwrap();
        assert!(matches!(load(&*file, 7, true).unwrap(), Loaded::Newer(2)));
    }

    #[test]
    fn the_index_finds_the_entry_in_front() {
        let segment = Segment::new(1, 1 << 20);
        assert_eq!(segment.seek(5), None);
        for lsn in 10..2000 {
            segment.note(lsn, 4096 + lsn * 300);
        }
        assert_eq!(segment.seek(9), None);
        let (lsn, offset) = segment.seek(1000).unwrap();
        assert!(lsn <= 1000 && offset == 4096 + lsn * 300 && 1000 - lsn <= INDEX_STRIDE / 300 + 1);
    }
}
