//! Waiting times between attempts.

use std::time::Duration;

/// Exponential backoff with full jitter: the wait before attempt `n` is anything between nothing and
/// `min * 2^n`, at most `max`, so that a fleet that lost its hub does not come back as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait after the first failure. Default 100 ms.
    pub min: Duration,
    /// Longest wait ever. Default 60 s.
    pub max: Duration,
}

/// A throttled client starts as if it had failed this often already.
const THROTTLED_FAILURES: u32 = 4;

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` earlier ones in a row.
    pub fn after(&self, failures: u32, jitter: &mut Jitter) -> Duration {
        jitter.below(self.ceiling(failures))
    }

    /// The wait where the same answer is to be expected again: between half of `max` and `max`.
    pub fn slow(&self, jitter: &mut Jitter) -> Duration {
        self.max / 2 + jitter.below(self.max / 2)
    }

    /// The wait after the other side asked to slow down: what it asked for and up to a quarter more, or a backoff that
    /// starts higher.
    pub fn throttled(&self, failures: u32, retry_after: Option<Duration>, jitter: &mut Jitter) -> Duration {
        match retry_after {
            Some(wait) => wait + jitter.below(wait / 4),
            None => self.after(failures.max(THROTTLED_FAILURES), jitter),
        }
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.min.checked_mul(factor).unwrap_or(self.max).min(self.max)
    }
}

/// A small random number generator (SplitMix64), seeded by the caller: chance from outside, decisions that repeat.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator whose numbers follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Anything from 0 to below `count`, evenly but for a part in billions; 0 when there is nothing to choose from.
    #[cfg_attr(not(feature = "service"), allow(dead_code, reason = "the service client chooses by it"))]
    pub(crate) fn index(&mut self, count: usize) -> usize {
        (self.next() % (count as u64).max(1)) as usize
    }

    /// Anything from nothing to `ceiling`, evenly.
    pub(crate) fn below(&mut self, ceiling: Duration) -> Duration {
        // 53 bits, as many as fit a double exactly.
        ceiling.mul_f64((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_fill_the_whole_range() {
        let backoff = Backoff::default();
        let mut jitter = Jitter::new(7);
        for failures in 0..200 {
            let ceiling = backoff.ceiling(failures);
            let waits: Vec<Duration> = (0..200).map(|_| backoff.after(failures, &mut jitter)).collect();
            assert!(waits.iter().all(|wait| *wait <= ceiling), "after {failures}");
            assert!(waits.iter().any(|wait| *wait < ceiling / 10), "after {failures}");
            assert!(waits.iter().any(|wait| *wait > ceiling.mul_f64(0.9)), "after {failures}");
        }
        assert_eq!(backoff.ceiling(0), Duration::from_millis(100));
        assert_eq!(backoff.ceiling(3), Duration::from_millis(800));
        assert_eq!(backoff.ceiling(10), Duration::from_secs(60));
    }

    #[test]
    fn slow_waits_are_never_short() {
        let (backoff, mut jitter) = (Backoff::default(), Jitter::new(1));
        for _ in 0..100 {
            let wait = backoff.slow(&mut jitter);
            assert!((backoff.max / 2..=backoff.max).contains(&wait));
        }
    }

    #[test]
    fn a_stated_wait_is_honoured() {
        let (backoff, mut jitter) = (Backoff::default(), Jitter::new(1));
        for _ in 0..100 {
            let wait = backoff.throttled(0, Some(Duration::from_secs(120)), &mut jitter);
            assert!((Duration::from_secs(120)..=Duration::from_secs(150)).contains(&wait));
        }
    }
}
