//! The one runtime of a process, started when it is first needed, and ended when nobody needs it any more.

#[cfg(any(test, feature = "shared-runtime"))]
use std::sync::Mutex;
#[cfg(feature = "shared-runtime")]
use std::sync::{MutexGuard, PoisonError};
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

#[cfg(feature = "shared-runtime")]
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

#[cfg(feature = "shared-runtime")]
struct Running {
    generation: u64,
    runtime: Runtime,
    leases: usize,
    /// Somebody wants it until the process ends.
    kept: bool,
}

/// The runtime of this process. The first call starts its threads, which stay until the process ends. To be asked when
/// something is opened, not at each call.
///
/// # Errors
/// `Internal` when the system gives no threads.
#[cfg(feature = "shared-runtime")]
pub fn runtime() -> Result<Handle> {
    started(|running| {
        running.kept = true;
        running.runtime.handle().clone()
    })
}

/// The runtime, for as long as this lives. When the last one is dropped its threads end, unless [`runtime`] was asked for it;
/// the next one starts others. Whoever suspends everything gives his back, and no thread is left.
#[cfg(feature = "shared-runtime")]
#[derive(Debug)]
pub struct Lease {
    generation: u64,
    runtime: Handle,
}

#[cfg(feature = "shared-runtime")]
impl Lease {
    /// A lease on the runtime of this process, which is started if it does not run.
    ///
    /// # Errors
    /// As [`runtime`].
    pub fn take() -> Result<Self> {
        started(|running| {
            running.leases += 1;
            Self { generation: running.generation, runtime: running.runtime.handle().clone() }
        })
    }

    /// The runtime.
    pub fn handle(&self) -> &Handle {
        &self.runtime
    }
}

#[cfg(feature = "shared-runtime")]
impl Drop for Lease {
    fn drop(&mut self) {
        let mut place = running();
        let Some(running) = place.as_mut().filter(|running| running.generation == self.generation) else {
            // Of a process before a fork, whose threads are not here.
            return;
        };
        running.leases -= 1;
        if running.leases == 0 && !running.kept {
            let ended = place.take();
            drop(place);
            if let Some(Running { runtime, .. }) = ended {
                // Not waited for: this may be one of its threads.
                runtime.shutdown_background();
            }
        }
    }
}

/// The runtime, if it runs.
#[cfg(feature = "shared-runtime")]
pub fn running_runtime() -> Option<Handle> {
    let generation = generation();
    let place = running();
    place
        .as_ref()
        .filter(|running| running.generation == generation)
        .map(|running| running.runtime.handle().clone())
}

/// What `use_it` says of the runtime, which is started if it does not run.
#[cfg(feature = "shared-runtime")]
fn started<R>(use_it: impl FnOnce(&mut Running) -> R) -> Result<R> {
    let generation = generation();
    let mut place = running();
    if let Some(running) = &mut *place
        && running.generation == generation
    {
        return Ok(use_it(running));
    }
    let mut builder = Builder::new_multi_thread();
    let runtime =
        builder.thread_name("whimbrel").worker_threads(WORKERS).enable_all().build().map_err(|error| {
            Error::new(ErrorKind::Internal, "runtime", "the system gives no threads").caused_by(error)
        })?;
    let mut fresh = Running { generation, runtime, leases: 0, kept: false };
    let said = use_it(&mut fresh);
    // The one of the process before the fork has no threads here; ending it would wait for them.
    mem::forget(place.replace(fresh));
    Ok(said)
}

#[cfg(feature = "shared-runtime")]
fn running() -> MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// In a process of its own, for other tests of this one keep the runtime.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_threads_are_there_for_as_long_as_somebody_has_a_lease() {
        const MARK: &str = "WHIMBREL_TEST_OF_LEASES";
        if std::env::var_os(MARK).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "runtime::tests::the_threads_are_there_for_as_long_as_somebody_has_a_lease";
            let status = alone.args([name, "--exact", "--nocapture"]).env(MARK, "1").status().unwrap();
            assert!(status.success(), "see above");
            return;
        }
        for _ in 0..20 {
            let (first, second) = (Lease::take().unwrap(), Lease::take().unwrap());
            assert_eq!(first.handle().id(), second.handle().id());
            assert_eq!(running_runtime().unwrap().id(), first.handle().id());
            let (told, heard) = std::sync::mpsc::channel();
            drop(first);
            let runtime = second.handle().clone();
            // The last one may go on a thread of the runtime itself, at the end of a call.
            runtime.spawn(async move {
                tokio::task::spawn_blocking(|| ()).await.unwrap();
                let threads = threads();
                drop(second);
                told.send(threads).unwrap();
            });
            assert!(heard.recv().unwrap() >= WORKERS);
            assert!(running_runtime().is_none());
            let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while threads() > 0 {
                assert!(std::time::Instant::now() < patience, "{} threads are left", threads());
                std::thread::yield_now();
            }
        }
        let before = Lease::take().unwrap();
        let kept = runtime().unwrap();
        assert_eq!(before.handle().id(), kept.id());
        drop(before);
        assert_eq!(running_runtime().unwrap().id(), kept.id(), "it is kept for who asked without a lease");
        let of_the_parent = Lease::take().unwrap();
        after_fork();
        assert!(running_runtime().is_none());
        let here = Lease::take().unwrap();
        drop(of_the_parent);
        assert_eq!(running_runtime().unwrap().id(), here.handle().id());
    }

    #[cfg(target_os = "linux")]
    fn threads() -> usize {
        // Taken for none, threads that cannot be counted would let the test pass.
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { panic!("the threads cannot be counted") };
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name).filter(|name| name.trim_end() == "whimbrel").count()
    }
}
