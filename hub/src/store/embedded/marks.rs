//! De-duplication of resends: one high-water mark per device, outbox and lane.
//!
//! An outbox numbers its messages per lane and a resend starts at the first unacknowledged one, so everything at or
//! below the highest number that was stored has been stored.

use std::collections::HashMap;

use whimbrel::{Lane, journal::Lsn};

use crate::store::{Entry, Origin};

/// Outboxes remembered for a device: those used last. A device has one, and a new one when its disk was replaced.
const OUTBOXES: usize = 8;

/// The marks of all devices.
#[derive(Default)]
pub(super) struct Marks {
    devices: HashMap<Box<str>, Vec<Mark>>,
    /// Devices whose marks changed since they were saved.
    changed: Vec<Box<str>>,
}

/// The marks of one outbox.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    /// Generation of the device: one that was deleted and created again starts afresh.
    pub(super) generation: Box<str>,
    pub(super) outbox: Box<str>,
    /// One more than the highest number stored, per lane; 0 when there is none.
    pub(super) below: [u64; 2],
    /// The event that moved it last.
    pub(super) used: Lsn,
    /// Whether the device is among the changed ones on account of this mark.
    pub(super) listed: bool,
}

fn lane(lane: Lane) -> usize {
    match lane {
        Lane::Telemetry => 0,
        Lane::Alert => 1,
    }
}

impl Marks {
    /// Puts back what was saved.
    pub(super) fn restore(&mut self, device: Box<str>, mark: Mark) {
        self.devices.entry(device).or_default().push(mark);
    }

    /// One more than the highest number stored in the origin's lane.
    fn below(&self, device: &str, generation: &str, origin: &Origin<'_>) -> u64 {
        let marks = self.devices.get(device).map(Vec::as_slice).unwrap_or_default();
        let mark =
            marks.iter().find(|mark| *mark.outbox == *origin.outbox && *mark.generation == *generation);
        mark.and_then(|mark| mark.below.get(lane(origin.lane))).copied().unwrap_or(0)
    }

    /// Notes that the origin's number is stored, as `lsn`.
    pub(super) fn raise(&mut self, device: &str, generation: &str, origin: &Origin<'_>, lsn: Lsn) {
        let Self { devices, changed } = self;
        if !devices.contains_key(device) {
            devices.insert(device.into(), Vec::new());
        }
        let Some(marks) = devices.get_mut(device) else { return };
        let known = marks
            .iter_mut()
            .position(|mark| *mark.outbox == *origin.outbox && *mark.generation == *generation);
        let index = known.unwrap_or_else(|| {
            if marks.len() >= OUTBOXES {
                let oldest =
                    marks.iter().enumerate().min_by_key(|(_, mark)| mark.used).map(|(index, _)| index);
                marks.swap_remove(oldest.unwrap_or(0));
            }
            marks.push(Mark {
                generation: generation.into(),
                outbox: origin.outbox.into(),
                below: [0; 2],
                used: lsn,
                listed: false,
            });
            marks.len() - 1
        });
        let Some(mark) = marks.get_mut(index) else { return };
        if let Some(below) = mark.below.get_mut(lane(origin.lane)) {
            *below = (*below).max(origin.number.saturating_add(1));
        }
        mark.used = lsn;
        if !mark.listed {
            mark.listed = true;
            changed.push(device.into());
        }
    }

    /// Forgets a device that was deleted.
    pub(super) fn forget(&mut self, device: &str) {
        if self.devices.remove(device).is_some() {
            self.changed.push(device.into());
        }
    }

    /// Takes the marks of the devices that changed, to save them: all marks of a device, none when it is gone.
    pub(super) fn take_changed(&mut self) -> Vec<(Box<str>, Vec<Mark>)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let marks = |device: Box<str>| {
            let marks = self.devices.get_mut(&device).map(Vec::as_mut_slice).unwrap_or_default();
            marks.iter_mut().for_each(|mark| mark.listed = false);
            let marks = marks.to_vec();
            (device, marks)
        };
        changed.into_iter().map(marks).collect()
    }

    /// Takes note that they could not be saved.
    pub(super) fn give_back(&mut self, unsaved: impl IntoIterator<Item = Box<str>>) {
        self.changed.extend(unsaved);
    }
}

/// Decides which events of one batch are resends. Nothing is noted before the batch is in the journal.
#[derive(Default)]
pub(super) struct Sieve<'a> {
    /// Per origin and lane in the batch: the highest number let through. One of them, as a rule.
    seen: Vec<Seen<'a>>,
}

struct Seen<'a> {
    device: &'a str,
    generation: &'a str,
    highest: Origin<'a>,
    below: u64,
    /// Index of the last event let through, among those let through.
    last: Option<u64>,
}

impl<'a> Sieve<'a> {
    /// Whether the event is new. `index` counts the events let through before it.
    pub(super) fn lets_through(&mut self, marks: &Marks, entry: &Entry<'a>, index: u64) -> bool {
        let Some(origin) = entry.origin else { return true };
        let known = self.seen.iter().position(|seen| {
            seen.highest.lane == origin.lane
                && seen.highest.outbox == origin.outbox
                && seen.device == entry.device
                && seen.generation == entry.generation
        });
        let known = known.unwrap_or_else(|| {
            self.seen.push(Seen {
                device: entry.device,
                generation: entry.generation,
                highest: origin,
                below: marks.below(entry.device, entry.generation, &origin),
                last: None,
            });
            self.seen.len() - 1
        });
        let Some(seen) = self.seen.get_mut(known) else { return true };
        if origin.number < seen.below {
            return false;
        }
        seen.below = origin.number.saturating_add(1);
        seen.highest = origin;
        seen.last = Some(index);
        true
    }

    /// Notes what went through, with `first` as the number of the first event of the batch in the journal.
    pub(super) fn commit(self, marks: &mut Marks, first: Lsn) {
        for seen in self.seen {
            if let Some(last) = seen.last {
                marks.raise(seen.device, seen.generation, &seen.highest, first + last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use whimbrel::Message;

    use super::*;

    fn entry<'a>(message: &'a Message, origin: Origin<'a>) -> Entry<'a> {
        Entry {
            partition: 0,
            device: "d",
            module: None,
            generation: "1",
            auth_method: "",
            message,
            origin: Some(origin),
        }
    }

    #[test]
    fn nothing_is_noted_without_commit() {
        let (message, mut marks) = (Message::telemetry(""), Marks::default());
        let entry = entry(&message, Origin { outbox: "o", lane: Lane::Alert, number: 9 });
        for _ in 0..2 {
            let mut sieve = Sieve::default();
            assert!(sieve.lets_through(&marks, &entry, 0));
            assert!(!sieve.lets_through(&marks, &entry, 1));
        }
        let mut sieve = Sieve::default();
        assert!(sieve.lets_through(&marks, &entry, 0));
        sieve.commit(&mut marks, 70);
        assert!(!Sieve::default().lets_through(&marks, &entry, 0));
        let changed = marks.take_changed();
        assert_eq!(changed.len(), 1);
        let mark = &changed[0].1[0];
        assert_eq!((mark.below, mark.used), ([0, 10], 70));
        assert!(marks.take_changed().is_empty());
    }

    #[test]
    fn a_device_that_went_is_saved_as_none() {
        let mut marks = Marks::default();
        let origin = Origin { outbox: "o", lane: Lane::Telemetry, number: 1 };
        marks.raise("d", "1", &origin, 1);
        assert_eq!(marks.take_changed().len(), 1);
        marks.forget("d");
        marks.forget("never there");
        assert_eq!(marks.take_changed(), [("d".into(), Vec::new())]);
        marks.give_back(["d".into()]);
        assert_eq!(marks.take_changed(), [("d".into(), Vec::new())]);
    }

    proptest! {
        /// Batches of resends in any cut give what a set of numbers per lane would.
        #[test]
        fn is_a_set_for_numbers_that_rise(
            batches in prop::collection::vec((0_usize..3, any::<bool>(), 0_u64..40, 1_u64..10), 1..40),
        ) {
            let (message, mut marks) = (Message::telemetry(""), Marks::default());
            let mut stored = std::collections::HashSet::new();
            let mut lsn = 1;
            for (outbox, alert, start, count) in batches {
                let outbox = ["a", "b", "c"][outbox];
                let lane = if alert { Lane::Alert } else { Lane::Telemetry };
                // An outbox never leaves out a number: it starts at or below the next one.
                let next = (0..).find(|number| !stored.contains(&(outbox, lane, *number))).unwrap_or(0);
                let start = start.min(next);
                let mut sieve = Sieve::default();
                let mut kept = 0;
                for number in start..start + count {
                    let origin = Origin { outbox, lane, number };
                    let is_new = sieve.lets_through(&marks, &entry(&message, origin), kept);
                    prop_assert_eq!(is_new, stored.insert((outbox, lane, number)));
                    kept += u64::from(is_new);
                }
                sieve.commit(&mut marks, lsn);
                lsn += kept;
            }
        }
    }
}
