//! Time, passed in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// A reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never jumps.
    pub monotonic: Instant,
    /// What the device believes the time of day is; may jump either way.
    pub wall: SystemTime,
}

/// Where an outbox takes its time from.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks now.
    fn now(&self) -> Now;
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// A clock that stands still until a test moves it.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct ManualClock(std::sync::Mutex<Now>);

#[cfg(feature = "testing")]
impl ManualClock {
    /// Starts at a fixed time of day.
    pub fn new() -> Self {
        let wall = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Self(std::sync::Mutex::new(Now { monotonic: Instant::now(), wall }))
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        now.monotonic += by;
        now.wall += by;
    }

    /// Somebody sets the time of day; no time passes.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).wall = wall;
    }
}

#[cfg(feature = "testing")]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "testing")]
impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The time since an outbox was opened first. Opening it again, after it was suspended, does not set it back.
pub(super) struct RunClock {
    clock: Arc<dyn Clock>,
    start: Instant,
    /// The last opening, on the run clock and by the time of day. Written and relied on with the outbox's state held.
    opened_run_ms: AtomicU64,
    opened_wall_ms: AtomicU64,
}

/// A point in time, as an outbox counts: milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Monotonic: the run clock.
    pub(super) run_ms: u64,
    /// Time of day, since 1970.
    pub(super) wall_ms: u64,
    /// The run clock when the outbox was opened last.
    pub(super) opened_run_ms: u64,
    /// Time of day then: the earlier of what the clock said, and of what it implies now.
    pub(super) opened_ms: u64,
}

impl RunClock {
    pub(super) fn start(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self {
            clock,
            start: now.monotonic,
            opened_run_ms: AtomicU64::new(0),
            opened_wall_ms: AtomicU64::new(since_epoch(now.wall)),
        }
    }

    /// The outbox is opened again.
    pub(super) fn reopened(&self) {
        let now = self.moment();
        self.opened_run_ms.store(now.run_ms, Relaxed);
        self.opened_wall_ms.store(now.wall_ms, Relaxed);
    }

    pub(super) fn moment(&self) -> Moment {
        let now = self.clock.now();
        let run_ms = millis(now.monotonic.saturating_duration_since(self.start));
        let wall_ms = since_epoch(now.wall);
        let opened_run_ms = self.opened_run_ms.load(Relaxed);
        let implied = wall_ms.saturating_sub(run_ms.saturating_sub(opened_run_ms));
        let opened_ms = self.opened_wall_ms.load(Relaxed).min(implied);
        Moment { run_ms, wall_ms, opened_run_ms, opened_ms }
    }

    /// The instant of `run_ms`; `None` when it is too far away to be one.
    pub(super) fn instant(&self, run_ms: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(run_ms))
    }
}

/// Whole milliseconds, capped.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_after_opening_corrects_the_time_of_opening_and_one_set_forward_does_not() {
        let clock = Arc::new(ManualClock::new());
        let true_start = clock.now().wall;
        clock.set_wall(true_start + Duration::from_secs(1_000_000));
        let run = RunClock::start(clock.clone());
        clock.advance(Duration::from_secs(5));
        assert_eq!(run.moment().opened_ms, since_epoch(true_start) + 1_000_000_000);
        clock.set_wall(true_start + Duration::from_secs(5));
        assert_eq!(run.moment().opened_ms, since_epoch(true_start));
        clock.set_wall(true_start + Duration::from_secs(90_000_000));
        assert_eq!(run.moment().opened_ms, since_epoch(true_start) + 1_000_000_000);
        assert_eq!(run.moment().run_ms, 5_000);
        clock.set_wall(true_start + Duration::from_secs(7));
        run.reopened();
        clock.advance(Duration::from_secs(3));
        let now = run.moment();
        assert_eq!((now.run_ms, now.opened_run_ms), (8_000, 5_000));
        assert_eq!(now.opened_ms, since_epoch(true_start) + 7_000);
    }
}
