//! Packet ids of what the hub publishes and the client has not acknowledged yet.

use std::{collections::VecDeque, num::NonZeroU16};

/// The window of one connection: at most so many unacknowledged publications, each with a packet id of its own. `T` is
/// what an acknowledgement settles.
///
/// A publication keeps its place until it is acknowledged, however long that takes: what it stands for may be over long
/// before, and the acknowledgement then comes to nothing.
#[derive(Debug)]
pub(crate) struct Window<T> {
    limit: usize,
    /// The id given out last.
    last: u16,
    /// In the order of publishing, which is the order most clients acknowledge in.
    waiting: VecDeque<(NonZeroU16, T)>,
}

impl<T> Window<T> {
    /// A window of `limit` publications, at least one.
    pub(crate) fn new(limit: u16) -> Self {
        Self { limit: usize::from(limit.max(1)), last: 0, waiting: VecDeque::new() }
    }

    /// Whether nothing may be published before something is acknowledged.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limit
    }

    /// Whether nothing waits for an acknowledgement.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes `what` in, and gives the packet id to publish it under: the next one that nobody else has.
    pub(crate) fn enter(&mut self, what: T) -> NonZeroU16 {
        debug_assert!(!self.is_full(), "nothing may be published now");
        // There are as many ids as the largest window has places, so while it is not full one is free.
        loop {
            self.last = self.last.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last)
                && self.waiting.iter().all(|(taken, _)| *taken != id)
            {
                self.waiting.push_back((id, what));
                return id;
            }
        }
    }

    /// What was published under `id`, which is free again; `None` when nothing was.
    pub(crate) fn leave(&mut self, id: NonZeroU16) -> Option<T> {
        let place = self.waiting.iter().position(|(taken, _)| *taken == id)?;
        let (_, what) = self.waiting.remove(place)?;
        if self.waiting.is_empty() {
            // An idle connection holds no buffers.
            self.waiting = VecDeque::new();
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    #[test]
    fn acknowledgements_may_come_in_any_order_late_and_twice() {
        let mut window = Window::new(3);
        for (expected, what) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            assert!(!window.is_full());
            assert_eq!(window.enter(what), id(expected));
        }
        assert!(window.is_full());
        assert_eq!(window.leave(id(4)), None, "never given out");
        assert_eq!(window.leave(id(2)), Some('b'));
        assert_eq!(window.leave(id(2)), None, "the second time it is late");
        assert_eq!(window.enter('d'), id(4), "an id rests before it comes again");
        assert_eq!([3, 1, 4].map(|free| window.leave(id(free))), [Some('c'), Some('a'), Some('d')]);
        assert!(window.is_empty());
    }

    #[test]
    fn ids_come_round_again_and_pass_over_those_that_wait() {
        let mut window = Window::new(2);
        let stuck = window.enter('x');
        for round in 0..3_u32 {
            for _ in 0..u16::MAX - 1 {
                let given = window.enter('y');
                assert_ne!(given, stuck, "round {round}");
                assert_eq!(window.leave(given), Some('y'));
            }
        }
        assert_eq!(window.leave(stuck), Some('x'));
    }

    #[test]
    fn the_largest_window_finds_an_id_for_everything() {
        let mut window = Window::new(u16::MAX);
        window.last = u16::MAX - 5;
        let ids: Vec<_> = (0..10).map(|n| window.enter(n).get()).collect();
        assert_eq!(ids, [65_531, 65_532, 65_533, 65_534, 65_535, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_limit_of_nothing_is_one() {
        let mut window = Window::new(0);
        window.enter('a');
        assert!(window.is_full());
    }

    proptest! {
        /// Beside a map that does the same.
        #[test]
        fn any_order(limit in 1_u16..20, steps in prop::collection::vec((any::<bool>(), 0_u16..30), 0..200)) {
            let mut window = Window::new(limit);
            window.last = u16::MAX - 10;
            let mut model = BTreeMap::new();
            for (number, (enter, choice)) in steps.into_iter().enumerate() {
                prop_assert_eq!(window.is_full(), model.len() == usize::from(limit));
                prop_assert_eq!(window.is_empty(), model.is_empty());
                if enter && !window.is_full() {
                    prop_assert!(model.insert(window.enter(number), number).is_none());
                } else {
                    let chosen = model.keys().nth(usize::from(choice)).copied().unwrap_or(id(choice + 100));
                    prop_assert_eq!(window.leave(chosen), model.remove(&chosen));
                }
            }
        }
    }
}
