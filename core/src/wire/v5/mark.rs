//! Our own marks: the number of a message, and the place of a stored event.

use std::fmt;

use crate::Lane;

/// `t42`, `a7`: names a message within an outbox for ever. Numbers rise within a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The lane.
    pub lane: Lane,
    /// The number in it.
    pub number: u64,
}

impl Number {
    /// Reads what `Display` writes; `None` when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let lane = match text.as_bytes().first()? {
            b't' => Lane::Telemetry,
            b'a' => Lane::Alert,
            _ => return None,
        };
        Some(Self { lane, number: decimal(text.get(1..)?)? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lane = match self.lane {
            Lane::Telemetry => 't',
            Lane::Alert => 'a',
        };
        write!(f, "{lane}{}", self.number)
    }
}

/// `3:42`, `3:`: where an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The sequence number; none for a resend of an event that was stored before.
    pub sequence: Option<u64>,
}

impl Place {
    /// Reads what `Display` writes; `None` when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let (partition, sequence) = text.split_once(':')?;
        let sequence = if sequence.is_empty() { None } else { Some(decimal(sequence)?) };
        Some(Self { partition: decimal(partition)?.try_into().ok()?, sequence })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.partition)?;
        self.sequence.map_or(Ok(()), |sequence| write!(f, "{sequence}"))
    }
}

/// Digits only: no sign, no space.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        for (text, lane, number) in
            [("t0", Lane::Telemetry, 0), ("a18446744073709551615", Lane::Alert, u64::MAX)]
        {
            let mark = Number { lane, number };
            assert_eq!((mark.to_string().as_str(), Number::parse(text)), (text, Some(mark)));
        }
        for (text, partition, sequence) in
            [("0:0", 0, Some(0)), ("31:", 31, None), ("4294967295:7", u32::MAX, Some(7))]
        {
            let place = Place { partition, sequence };
            assert_eq!((place.to_string().as_str(), Place::parse(text)), (text, Some(place)));
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "t", "42", "T1", "t+1", "t-1", "t 1", "t18446744073709551616", "ü1"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        for text in ["", "1", ":", ":1", "1:x", "-1:1", "4294967296:1", "1:2:3", "+1:2"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
