//! All I/O of the journal, so that a crashing disk can take its place.

use std::{io, sync::Arc};

/// A folder with files. All calls block.
///
/// A name may hold one slash: the file is then in a folder of that name, made when a file in it is created.
pub trait Disk: Send + Sync + 'static {
    /// Names and sizes of all files, those in folders not included.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Opens an existing file, or creates an empty one.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomically gives a file another name; an existing file of that name is replaced. Open handles stay good.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Open handles stay good.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable, those in folders not included.
    fn sync_names(&self) -> io::Result<()>;
    /// Takes the folder for this process until the guard is dropped. When somebody else has it the error's kind is
    /// `WouldBlock`, and its text names the process.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
    /// Where this is, for error texts.
    fn describe(&self) -> String;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Bytes in the file.
    fn size(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`. Behind the end of the file, the file grows.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written to this file durable, whichever handle wrote it.
    fn sync(&self) -> io::Result<()>;
}

/// Fills `buffer`, with zeros where the file is too short.
pub(super) fn read_exact(file: &dyn DiskFile, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(offset, buffer) {
            Ok(0) => {
                buffer.fill(0);
                return Ok(());
            }
            Ok(count) => {
                offset += count as u64;
                buffer = buffer.get_mut(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
