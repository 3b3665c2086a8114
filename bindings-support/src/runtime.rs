//! The one runtime of a process, started when it is first needed.

#[cfg(any(test, feature = "shared-runtime"))]
use std::sync::Mutex;
#[cfg(feature = "shared-runtime")]
use std::sync::PoisonError;
use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

#[cfg(feature = "shared-runtime")]
use tokio::runtime::{Builder, Handle, Runtime};
use whimbrel::{Error, ErrorKind, Result};

/// Counts the forks between the first process and this one. Threads do not survive a fork, so nothing from before one works
/// behind it.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The runtime, and of which process it is. Never ended: whoever waited for its threads might wait for ever.
#[cfg(feature = "shared-runtime")]
static RUNTIME: Mutex<Option<(u64, Runtime)>> = Mutex::new(None);

/// The runtime of this process. The first call starts its threads. To be asked when something is opened, not at each call.
///
/// # Errors
/// `Internal` when the system gives no threads.
#[cfg(feature = "shared-runtime")]
pub fn runtime() -> Result<Handle> {
    let generation = generation();
    let mut place = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, runtime)) = &*place
        && *of == generation
    {
        return Ok(runtime.handle().clone());
    }
    let mut builder = Builder::new_multi_thread();
    let fresh =
        builder.thread_name("whimbrel").worker_threads(WORKERS).enable_all().build().map_err(|error| {
            Error::new(ErrorKind::Internal, "runtime", "the system gives no threads").caused_by(error)
        })?;
    let handle = fresh.handle().clone();
    // The one of the process before the fork has no threads here; ending it would wait for them.
    mem::forget(place.replace((generation, fresh)));
    Ok(handle)
}

/// To be called in the child after a fork: what was opened before fails from now on, what is opened now works.
pub fn after_fork() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// Of which process, counted by forks, this is.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// A value that belongs to the process it was made in: behind a fork it cannot be reached, and is not even dropped, for its
/// locks may be held by threads that are gone.
#[derive(Debug)]
pub struct Bound<T> {
    generation: u64,
    value: Option<T>,
}

impl<T> Bound<T> {
    /// Binds `value` to this process.
    pub fn new(value: T) -> Self {
        Self { generation: generation(), value: Some(value) }
    }

    /// The value.
    ///
    /// # Errors
    /// `Closed` behind a fork.
    pub fn get(&self) -> Result<&T> {
        self.value.as_ref().filter(|_| self.is_here()).ok_or_else(|| {
            let text = "this object was made before the process forked; make a new one in this process";
            Error::new(ErrorKind::Closed, "fork", text)
        })
    }

    fn is_here(&self) -> bool {
        self.generation == generation()
    }
}

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            mem::forget(self.value.take());
        }
    }
}

/// Held by tests that fork, as it were, and by those to which it would matter.
#[cfg(test)]
pub(crate) static FORKS: Mutex<()> = Mutex::new(());

/// Threads that drive clients: a device has little to do at a time, and the program has threads of its own.
#[cfg(feature = "shared-runtime")]
const WORKERS: usize = 2;

#[cfg(all(test, feature = "shared-runtime"))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_made_before_a_fork_is_neither_reached_nor_dropped_behind_it() {
        let _alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
        let value = Arc::new(());
        let (before, dropped) = (Bound::new(value.clone()), Bound::new(value.clone()));
        assert!(before.get().is_ok());
        drop(dropped);
        assert_eq!(Arc::strong_count(&value), 2);
        let first = runtime().unwrap();
        after_fork();
        assert_eq!(before.get().unwrap_err().kind(), ErrorKind::Closed);
        drop(before);
        assert_eq!(Arc::strong_count(&value), 2, "it was forgotten");
        let second = runtime().unwrap();
        assert_ne!(first.id(), second.id());
        assert_eq!(second.id(), runtime().unwrap().id());
        assert!(Bound::new(()).get().is_ok());
    }
}
