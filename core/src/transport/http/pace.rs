//! How much goes into one request, and how long its answer may take. HTTP tells nothing while a request is on its way, so
//! a slow network and a dead one look the same: what was too slow is tried again with less in it, or with more time where
//! there is nothing less. Pure.

/// Most bytes of a batch, as text: what the C SDK keeps to, which leaves room below 256 KiB.
const MOST: usize = 255 * 1_024 - 1;
/// A batch is not made smaller than this.
const LEAST: usize = 8 * 1_024;
/// Longest wait, in times of the usual one.
const MOST_PATIENCE: u32 = 16;

/// Learns from one request to the next, also across connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    bytes: usize,
    patience: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: MOST, patience: 1 }
    }
}

impl Pace {
    /// Most bytes of a batch.
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    /// How many times the usual wait the next request gets.
    pub(super) fn patience(self) -> u32 {
        self.patience
    }

    /// An answer came, whatever it was.
    pub(super) fn answered(&mut self) {
        *self = Self { bytes: (self.bytes * 2).min(MOST), patience: 1 };
    }

    /// No answer came in time, to so many messages.
    pub(super) fn late(&mut self, messages: usize) {
        if messages > 1 && self.bytes > LEAST {
            self.bytes = (self.bytes / 2).max(LEAST);
        } else {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_becomes_less_and_then_gets_time() {
        let mut pace = Pace::default();
        let mut sizes = vec![pace.bytes()];
        while pace.patience() == 1 {
            pace.late(9);
            sizes.push(pace.bytes());
        }
        assert!(sizes.is_sorted_by(|one, next| one >= next) && sizes.last() == Some(&LEAST), "{sizes:?}");
        for _ in 0..9 {
            pace.late(1);
        }
        assert_eq!(pace.patience(), MOST_PATIENCE);
        pace.answered();
        assert_eq!((pace.bytes(), pace.patience()), (2 * LEAST, 1));
        for _ in 0..9 {
            pace.answered();
        }
        assert_eq!(pace, Pace::default());
    }
}
