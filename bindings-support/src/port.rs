//! The way back: results that wait until the language's own thread takes them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// A queue from the runtime's threads to one thread of the language, such as that of an event loop. When it has become
/// non-empty it wakes that thread once, however much follows: many results cost one wake-up.
pub struct Port<T> {
    results: Mutex<VecDeque<T>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T> Port<T> {
    /// `wake` is called on any thread of the runtime, never with a lock held; it has to have [`Port::take`] called on the
    /// language's thread soon.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { results: Mutex::default(), wake: Box::new(wake) }
    }

    /// Adds results, in order.
    pub fn push(&self, results: impl IntoIterator<Item = T>) {
        let was_empty = {
            let mut waiting = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = waiting.is_empty();
            waiting.extend(results);
            was_empty && !waiting.is_empty()
        };
        if was_empty {
            (self.wake)();
        }
    }

    /// Moves up to `limit` results to the end of `out`; whether more are waiting. Whoever leaves some has to come back by
    /// himself: nobody wakes him for them.
    pub fn take(&self, limit: usize, out: &mut Vec<T>) -> bool {
        let mut waiting = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let count = limit.min(waiting.len());
        out.extend(waiting.drain(..count));
        !waiting.is_empty()
    }

    /// Shows what is waiting to `see`, for a garbage collector; nothing while somebody else is at it.
    pub fn look(&self, see: impl FnMut(&T)) {
        if let Ok(waiting) = self.results.try_lock() {
            waiting.iter().for_each(see);
        }
    }
}

impl<T> std::fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn many_results_are_one_wake_up() {
        let woken = Arc::new(AtomicUsize::new(0));
        let port = Port::new({
            let woken = woken.clone();
            move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }
        });
        port.push([]);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        port.push([1, 2]);
        port.push([3]);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let mut taken = Vec::new();
        assert!(port.take(2, &mut taken));
        assert!(!port.take(2, &mut taken));
        assert_eq!(taken, [1, 2, 3]);
        port.look(|_| panic!("nothing is waiting"));
        port.push([4]);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let mut seen = Vec::new();
        port.look(|result| seen.push(*result));
        assert_eq!(seen, [4]);
    }
}
