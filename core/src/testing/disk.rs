//! A disk that remembers everything done to it, and shows what a power cut at any moment may have left.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::journal::{Disk, DiskFile};

/// What the disk writes as a whole or not at all.
const SECTOR: u64 = 512;

/// A disk in memory whose power can be cut. Clones share it.
///
/// Writes count for sure once the file was synced, names once they were synced. Of everything else any subset can be
/// there after a cut, writes being torn at sectors of 512 bytes.
#[derive(Clone, Default)]
pub struct CrashDisk {
    world: Arc<Mutex<World>>,
    locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct World {
    /// What was there at the start; all durable.
    start: Image,
    done: Vec<Deed>,
    /// What programs see.
    now: Image,
    capacity: Option<u64>,
    failures: Vec<(Deeds, usize)>,
}

#[derive(Clone, Default)]
struct Image {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
}

impl Image {
    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) {
        if self.files.len() <= file {
            self.files.resize(file + 1, Vec::new());
        }
        let Some(content) = self.files.get_mut(file) else { return };
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if content.len() < to {
            content.resize(to, 0);
        }
        if let Some(target) = content.get_mut(from..to) {
            target.copy_from_slice(bytes);
        }
    }

    fn name(&mut self, deed: &Deed) {
        match deed {
            Deed::Create { file, name } => {
                self.names.insert(name.clone(), *file);
            }
            Deed::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Deed::Remove { name } => {
                self.names.remove(name);
            }
            _ => {}
        }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(*file)).map(|content| content.len() as u64).sum()
    }
}

enum Deed {
    Create {
        file: usize,
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncNames,
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Sync {
        file: usize,
    },
    /// A sync that failed: the system takes what was written for stored, and does not try again.
    FailedSync {
        file: usize,
    },
}

/// Kinds of calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deeds {
    /// Reading.
    Read,
    /// Writing; nothing of it is done.
    Write,
    /// Syncing a file. What was written may or may not be on the disk, and later syncs do not change that.
    Sync,
    /// Syncing names.
    SyncNames,
}

/// What of the things that were not synced is there after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Each sector and each name by chance, drawn from this seed.
    Some(u64),
}

/// Small random numbers, the same for the same seed on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall alike.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }

    /// Whether something happens that does so `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Judge {
    survivors: Survivors,
    dice: Dice,
    /// How likely each thing is to survive, in percent. Drawn once, so that cuts with few and with many survivors occur.
    percent: u64,
}

impl Judge {
    fn new(survivors: Survivors) -> Self {
        let mut dice = Dice::new(match survivors {
            Survivors::Some(seed) => seed,
            Survivors::None | Survivors::All => 0,
        });
        let percent = 10 + 40 * dice.below(3);
        Self { survivors, dice, percent }
    }

    fn survives(&mut self) -> bool {
        match self.survivors {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Some(_) => self.dice.chance(self.percent),
        }
    }

    /// Applies the sectors of a write that survive.
    fn apply(&mut self, image: &mut Image, file: usize, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = ((SECTOR - at % SECTOR) as usize).min(rest.len());
            let (sector, behind) = rest.split_at(count);
            if self.survives() {
                image.write(file, at, sector);
            }
            at += count as u64;
            rest = behind;
        }
    }
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many things were done so far; what has returned by now is in front of it.
    pub fn position(&self) -> usize {
        self.world().done.len()
    }

    /// What the disk holds when the power is cut after the first `position` things done to it. The new disk knows
    /// nothing of the past, has no faults and is not locked.
    pub fn cut(&self, position: usize, survivors: Survivors) -> Self {
        let world = self.world();
        let mut judge = Judge::new(survivors);
        let mut image = world.start.clone();
        let mut writes: Vec<(usize, u64, &[u8])> = Vec::new();
        let mut names: Vec<&Deed> = Vec::new();
        for deed in world.done.iter().take(position) {
            match deed {
                Deed::Create { .. } | Deed::Rename { .. } | Deed::Remove { .. } => names.push(deed),
                Deed::SyncNames => names.drain(..).for_each(|deed| image.name(deed)),
                Deed::Write { file, offset, bytes } => writes.push((*file, *offset, bytes)),
                Deed::Sync { file: synced } => writes.retain(|(file, offset, bytes)| {
                    if file == synced {
                        image.write(*file, *offset, bytes);
                    }
                    file != synced
                }),
                Deed::FailedSync { file: synced } => writes.retain(|(file, offset, bytes)| {
                    if file == synced {
                        judge.apply(&mut image, *file, *offset, bytes);
                    }
                    file != synced
                }),
            }
        }
        for (file, offset, bytes) in writes {
            judge.apply(&mut image, file, offset, bytes);
        }
        for deed in names {
            if judge.survives() {
                image.name(deed);
            }
        }
        let files = image.names.values().max().map_or(0, |last| last + 1).max(image.files.len());
        image.files.resize(files, Vec::new());
        Self::holding(image)
    }

    /// What the disk holds now, on a disk of its own.
    pub fn copy(&self) -> Self {
        Self::holding(self.world().now.clone())
    }

    fn holding(image: Image) -> Self {
        let world = World { start: image.clone(), now: image, ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), locked: Arc::default() }
    }

    /// Flips one bit; `false` when there is no such byte.
    pub fn flip(&self, name: &str, offset: u64, bit: u32) -> bool {
        let mut world = self.world();
        let Some(file) = world.now.names.get(name).copied() else { return false };
        let byte = world.now.files.get_mut(file).and_then(|content| content.get_mut(offset as usize));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    /// Overwrites bytes behind everybody's back; `false` when there is no such file.
    pub fn scribble(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let mut world = self.world();
        let Some(file) = world.now.names.get(name).copied() else { return false };
        world.now.write(file, offset, bytes);
        true
    }

    /// The content of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.now.files.get(*world.now.names.get(name)?).cloned()
    }

    /// Names of all files, those in folders included.
    pub fn names(&self) -> Vec<String> {
        self.world().now.names.keys().cloned().collect()
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.world().now.used()
    }

    /// Writes that would make the files larger than `bytes` altogether fail with `StorageFull`; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().capacity = bytes;
    }

    /// Makes one call fail with an I/O error: the next of its kind after `after` more.
    pub fn fail(&self, kind: Deeds, after: usize) {
        self.world().failures.push((kind, after));
    }
}

impl fmt::Debug for CrashDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashDisk").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl World {
    fn check(&mut self, kind: Deeds) -> io::Result<()> {
        let mut failed = false;
        self.failures.retain_mut(|(failing, after)| {
            if *failing != kind {
                return true;
            }
            failed |= *after == 0;
            let keep = *after > 0;
            *after = after.saturating_sub(1);
            keep
        });
        if failed { Err(io::Error::other("injected fault")) } else { Ok(()) }
    }

    fn rename_or_remove(&mut self, name: &str, deed: Deed) -> io::Result<()> {
        if !self.now.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.now.name(&deed);
        self.done.push(deed);
        Ok(())
    }
}

impl Disk for CrashDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let world = self.world();
        let size = |file: &usize| world.now.files.get(*file).map_or(0, Vec::len) as u64;
        let listed = world.now.names.iter().filter(|(name, _)| !name.contains('/'));
        Ok(listed.map(|(name, file)| (name.clone(), size(file))).collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let file = match world.now.names.get(name) {
            Some(file) => *file,
            None if create => {
                let file = world.now.files.len();
                let deed = Deed::Create { file, name: name.to_owned() };
                world.now.files.push(Vec::new());
                world.now.name(&deed);
                world.done.push(deed);
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(CrashFile { world: self.world.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.world().rename_or_remove(from, Deed::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.world().rename_or_remove(name, Deed::Remove { name: name.to_owned() })
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        world.check(Deeds::SyncNames)?;
        world.done.push(Deed::SyncNames);
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        if self.locked.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "open in this process already"));
        }
        Ok(Box::new(Unlock(self.locked.clone())))
    }

    fn describe(&self) -> String {
        "crashing disk".into()
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

struct CrashFile {
    world: Arc<Mutex<World>>,
    file: usize,
}

impl CrashFile {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for CrashFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.world().now.files.get(self.file).map_or(0, Vec::len) as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world();
        world.check(Deeds::Read)?;
        let content = world.now.files.get(self.file).map(Vec::as_slice).unwrap_or_default();
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(source);
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        world.check(Deeds::Write)?;
        let size = world.now.files.get(self.file).map_or(0, Vec::len) as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(size);
        if growth > 0 && world.capacity.is_some_and(|capacity| world.now.used() + growth > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        world.now.write(self.file, offset, bytes);
        world.done.push(Deed::Write { file: self.file, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        let file = self.file;
        if let Err(error) = world.check(Deeds::Sync) {
            world.done.push(Deed::FailedSync { file });
            return Err(error);
        }
        world.done.push(Deed::Sync { file });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_writes_and_names_survive_every_cut_and_others_only_by_chance() {
        let disk = CrashDisk::new();
        let file = disk.open("a", true).unwrap();
        file.write_at(0, &[1; 2048]).unwrap();
        file.sync().unwrap();
        let unnamed = disk.position();
        disk.sync_names().unwrap();
        file.write_at(512, &[2; 1024]).unwrap();
        disk.rename("a", "b").unwrap();
        let end = disk.position();

        assert_eq!(disk.cut(unnamed, Survivors::None).names(), Vec::<String>::new());
        assert_eq!(disk.cut(unnamed, Survivors::All).content("a").unwrap(), [1; 2048]);
        assert_eq!(disk.cut(end, Survivors::None).content("a").unwrap(), [1; 2048]);
        let all = disk.cut(end, Survivors::All);
        assert_eq!(all.content("b").unwrap()[511..514], [1, 2, 2]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let cut = disk.cut(end, Survivors::Some(seed));
            let name = cut.names().remove(0);
            let content = cut.content(&name).unwrap();
            assert!(content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            seen.insert((name, content[512], content[1024]));
        }
        assert_eq!(seen.len(), 8, "every combination of two sectors and a name");
    }

    #[test]
    fn what_a_failed_sync_left_is_not_made_durable_by_the_next() {
        let disk = CrashDisk::new();
        let file = disk.open("a", true).unwrap();
        disk.sync_names().unwrap();
        file.write_at(0, &[1; 512]).unwrap();
        disk.fail(Deeds::Sync, 0);
        file.sync().unwrap_err();
        file.write_at(512, &[2; 512]).unwrap();
        file.sync().unwrap();
        let left = disk.cut(disk.position(), Survivors::None).content("a").unwrap();
        assert_eq!((left[0], left[512]), (0, 2));
    }

    #[test]
    fn a_full_disk_takes_overwrites_only() {
        let disk = CrashDisk::new();
        let file = disk.open("a", true).unwrap();
        disk.set_capacity(Some(1000));
        file.write_at(0, &[1; 1000]).unwrap();
        assert_eq!(file.write_at(990, &[1; 11]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(10, &[2; 990]).unwrap();
    }
}
