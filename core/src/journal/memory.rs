//! Files in memory.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Disk, DiskFile};

/// Pages that were only ever written with zeros take no memory, so segments prepared ahead cost nothing.
const PAGE: usize = 16 * 1024;

/// Files in memory: what an outbox without a folder uses, by explicit choice.
#[derive(Default)]
pub struct MemoryDisk {
    files: Mutex<HashMap<String, Arc<MemoryFile>>>,
    locked: Arc<AtomicBool>,
}

impl MemoryDisk {
    fn files(&self) -> MutexGuard<'_, HashMap<String, Arc<MemoryFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let files = self.files();
        let listed = files.iter().filter(|(name, _)| !name.contains('/'));
        listed.map(|(name, file)| Ok((name.clone(), file.size()?))).collect()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files();
        match files.get(name) {
            Some(file) => Ok(file.clone()),
            None if create => Ok(files.entry(name.to_owned()).or_default().clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        if self.locked.swap(true, Ordering::AcqRel) {
            let text = format!("open in this process ({}) already", std::process::id());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(Box::new(Unlock(self.locked.clone())))
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct MemoryFile(RwLock<Pages>);

#[derive(Default)]
struct Pages {
    size: u64,
    pages: Vec<Option<Box<[u8]>>>,
}

/// Cuts `len` bytes at `offset` at the page bounds: page, offset in it, bytes.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = offset as usize;
    let end = at + len;
    std::iter::from_fn(move || {
        let (page, within) = (at / PAGE, at % PAGE);
        let count = (end - at).min(PAGE - within);
        at += count;
        (count > 0).then_some((page, within, count))
    })
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let count = buffer.len().min(usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut rest = buffer;
        for (page, within, count) in spans(offset, count) {
            let (part, behind) = rest.split_at_mut(count);
            rest = behind;
            match file.pages.get(page).and_then(|page| page.as_deref()?.get(within..within + count)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let end = offset + bytes.len() as u64;
        file.size = file.size.max(end);
        let pages = (end as usize).div_ceil(PAGE);
        if file.pages.len() < pages {
            file.pages.resize(pages, None);
        }
        let mut rest = bytes;
        for (page, within, count) in spans(offset, bytes.len()) {
            let (part, behind) = rest.split_at(count);
            rest = behind;
            let Some(page) = file.pages.get_mut(page) else { continue };
            if page.is_none() && part.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page = page.get_or_insert_with(|| vec![0; PAGE].into_boxed_slice());
            if let Some(target) = page.get_mut(within..within + count) {
                target.copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
