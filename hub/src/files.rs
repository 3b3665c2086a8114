//! Small files the hub keeps beside its databases: keys and certificates.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use whimbrel::{Error, ErrorKind, Result};

/// Makes a folder (and those above it) that only its owner may enter. One that exists is left as it is.
///
/// # Errors
/// `JournalIo`.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| failed("the folder cannot be made", path, error))
}

/// Replaces a file that only its owner may read. Whoever reads it meanwhile sees the old or the new text, never half.
///
/// # Errors
/// `JournalIo`, `DiskFull`.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> Result<()> {
    write(path, text, 0o600)
}

/// As [`write_private`], for everybody to read.
///
/// # Errors
/// As there.
pub(crate) fn write_public(path: &Path, text: &[u8]) -> Result<()> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let replace = || -> io::Result<()> {
        // A leftover of a crash may have other rights: never write a secret into it.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    replace().map_err(|error| failed("the file cannot be written", path, error))
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        _ => ErrorKind::JournalIo,
    };
    Error::new(kind, "hub.start", what).with("path", path.display()).caused_by(error)
}
