//! How often somebody may ask: a token bucket for each key.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets each key through so many times a second on average, and up to twice as many at once.
///
/// A bucket is kept as the moment at which it will be full again, so one that is full need not be kept at all.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Time one token takes to come back; `None` lets everything through.
    interval: Option<Duration>,
    /// Time an empty bucket takes to fill.
    depth: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    full_at: HashMap<Box<str>, Instant>,
    /// Look for full buckets when there are more than this.
    sweep_over: usize,
}

impl Throttle {
    /// 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        Self { interval, depth: BURST, state: Mutex::default() }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait for one.
    pub(crate) fn take(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let missing =
            state.full_at.get(key).map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let after = missing + interval;
        if after > self.depth.max(interval) {
            return Err(after - self.depth.max(interval));
        }
        match state.full_at.get_mut(key) {
            Some(full_at) => *full_at = now + after,
            None => {
                state.make_room(now);
                state.full_at.insert(key.into(), now + after);
            }
        }
        Ok(())
    }
}

impl State {
    /// Forgets full buckets, when there are twice as many as were left the last time.
    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() >= self.sweep_over.max(FEW) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_over = 2 * self.full_at.len();
        }
    }
}

/// Tokens of a full bucket, as the time they take to come.
const BURST: Duration = Duration::from_secs(2);
/// Buckets that are not worth looking through.
const FEW: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(throttle: &Throttle, key: &str, now: Instant) -> usize {
        (0..1_000).take_while(|_| throttle.take(key, now).is_ok()).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let throttle = Throttle::new(10);
        let start = Instant::now();
        assert_eq!(taken(&throttle, "a", start), 20);
        assert_eq!(throttle.take("a", start), Err(SECOND / 10));
        assert_eq!(taken(&throttle, "b", start), 20, "keys do not touch each other");
        assert_eq!(throttle.take("a", start + SECOND / 20), Err(SECOND / 20));
        assert_eq!(taken(&throttle, "a", start + SECOND), 10);
        assert_eq!(taken(&throttle, "a", start + 100 * SECOND), 20, "no more than a burst is saved up");
    }

    #[test]
    fn who_asks_in_vain_waits_no_longer_for_it() {
        let throttle = Throttle::new(1);
        let start = Instant::now();
        assert_eq!(taken(&throttle, "a", start), 2);
        for _ in 0..100 {
            assert_eq!(throttle.take("a", start), Err(SECOND));
        }
        assert_eq!(throttle.take("a", start + SECOND), Ok(()));
    }

    #[test]
    fn none_is_no_limit() {
        assert_eq!(taken(&Throttle::new(0), "a", Instant::now()), 1_000);
    }

    #[test]
    fn only_those_who_ask_are_kept() {
        let throttle = Throttle::new(100);
        let start = Instant::now();
        for index in 0..100_000_u32 {
            throttle.take(&index.to_string(), start + index * Duration::from_millis(1)).unwrap();
        }
        let kept = throttle.state.lock().unwrap().full_at.len();
        assert!(kept <= 2 * FEW, "{kept} are kept");
    }
}
