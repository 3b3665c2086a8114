//! Tests of whole processes: what is left when a device or a hub is killed, or its disk is full.
//!
//! The two programs in `src/bin` are the victims; the tests in `tests/` start, kill and judge them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use whimbrel::{Lane, Message};

/// Names one message for ever: which life of the device process sent it, in which lane, as the how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Which start of the device process.
    pub life: u32,
    /// Its lane.
    pub lane: Lane,
    /// Its place in the lane, in this life, from 1.
    pub index: u64,
}

impl Mark {
    /// A message that carries this mark in its body.
    pub fn message(self) -> Message {
        Message::in_lane(self.lane, self.to_string())
    }

    /// Reads the mark of a stored message; `None` when its body is something else.
    pub fn of(message: &Message) -> Option<Self> {
        std::str::from_utf8(message.body()).ok()?.parse().ok()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.life, self.lane.name(), self.index)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("not a mark: {text:?}");
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(malformed);
        let life = word()?.parse().map_err(|_| malformed())?;
        let lane = word()?;
        let lane = Lane::ALL.into_iter().find(|known| known.name() == lane).ok_or_else(malformed)?;
        let index = word()?.parse().map_err(|_| malformed())?;
        Ok(Self { life, lane, index })
    }
}

/// What the hub holds of one device, held against what the device said it had accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages stored.
    pub stored: usize,
    /// Accepted by the outbox, and not at the hub.
    pub lost: Vec<Mark>,
    /// Stored more than once.
    pub duplicates: Vec<Mark>,
    /// Stored before a message of the same lane that was sent earlier.
    pub out_of_order: Vec<Mark>,
}

impl Verdict {
    /// Judges `stored` (in the order of the log) against `accepted`.
    pub fn judge(accepted: &[Mark], stored: &[Mark]) -> Self {
        let mut verdict = Self { stored: stored.len(), ..Self::default() };
        let mut seen: BTreeMap<Mark, usize> = BTreeMap::new();
        let mut newest: BTreeMap<Lane, Mark> = BTreeMap::new();
        for &mark in stored {
            let times = seen.entry(mark).or_default();
            *times += 1;
            if *times > 1 {
                verdict.duplicates.push(mark);
                continue;
            }
            let newest = newest.entry(mark.lane).or_insert(mark);
            if mark < *newest {
                verdict.out_of_order.push(mark);
            } else {
                *newest = mark;
            }
        }
        verdict.lost = accepted.iter().filter(|mark| !seen.contains_key(mark)).copied().collect();
        verdict
    }

    /// Whether nothing was lost, doubled or swapped.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicates.is_empty() && self.out_of_order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(life: u32, lane: Lane, index: u64) -> Mark {
        Mark { life, lane, index }
    }

    #[test]
    fn a_mark_survives_the_journey() {
        let mark = mark(3, Lane::Alert, 17);
        assert_eq!(Mark::of(&mark.message()), Some(mark));
        assert_eq!(Mark::of(&Message::telemetry("3 alert x")), None);
    }

    #[test]
    fn the_judge_sees_loss_doubling_and_swapping() {
        let [one, two, three] = [1, 2, 3].map(|index| mark(1, Lane::Telemetry, index));
        assert!(
            Verdict::judge(&[one, two], &[one, two, three]).is_clean(),
            "more than was confirmed is fine"
        );
        assert_eq!(Verdict::judge(&[one, two], &[one]).lost, [two]);
        assert_eq!(Verdict::judge(&[one], &[one, one]).duplicates, [one]);
        assert_eq!(Verdict::judge(&[], &[two, one]).out_of_order, [one]);
        let alert = mark(1, Lane::Alert, 1);
        assert!(Verdict::judge(&[], &[two, alert, three]).is_clean(), "lanes overtake each other");
    }
}
