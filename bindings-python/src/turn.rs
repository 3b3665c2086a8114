//! How long a call that has much to do keeps the interpreter's lock.

use std::time::{Duration, Instant};

/// The time of one call. What there is to do is done in small steps; behind each the call asks whether others should have their
/// turn. A count instead would be too long a time on a slow machine, and too many calls on a fast one.
pub(crate) struct Turn(Instant);

impl Turn {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.elapsed() >= LONGEST
    }
}

/// With the step that is under way when it is over, well below the 50 µs that are promised.
const LONGEST: Duration = Duration::from_micros(20);
