//! Files in a folder of the file system.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Disk, DiskFile};

/// Name of the file whose lock says that the folder is in use.
const LOCK: &str = "lock";

/// Files in a folder of the file system.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
}

impl RealDisk {
    /// Creates the folder when it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK
            {
                names.push((name, entry.metadata()?.len()));
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        if create && name.contains('/') {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    #[cfg(unix)]
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_names(&self) -> io::Result<()> {
        Ok(()) // names are durable when the call that changed them returns
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.path(LOCK);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Box::new(Lock(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.take(20).read_to_string(&mut owner); // only for the text
                let owner = owner.trim().parse::<u32>();
                Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    match owner {
                        Ok(pid) if pid == std::process::id() => {
                            format!("open in this process ({pid}) already")
                        }
                        Ok(pid) => format!("open in process {pid}"),
                        Err(_) => "open in another process".into(),
                    },
                ))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}

/// The lock on a folder. Given back by itself and not by closing the file, which a child that the process forked has, too.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // If it fails, closing the file gives it back as far as it can be.
        let _ = self.0.unlock();
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.0, buffer, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(&self.0, bytes, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_once_its_lock_is_dropped_even_if_a_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::create(folder.path()).unwrap();
        let lock =
            Lock(OpenOptions::new().write(true).create(true).truncate(false).open(disk.path(LOCK)).unwrap());
        lock.0.try_lock().unwrap();
        // What a forked child has: another descriptor of the same open file.
        let of_a_child = lock.0.try_clone().unwrap();
        assert_eq!(disk.lock().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        disk.lock().unwrap();
        drop(of_a_child);
    }
}
