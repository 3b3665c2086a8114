//! Times as text: ISO 8601, in the one form every client reads.
//!
//! ```
//! use whimbrel::wire::time;
//!
//! let noon = time::parse("2026-01-31T13:00:00+01:00").unwrap();
//! assert_eq!(time::format(noon), "2026-01-31T12:00:00.0000000Z");
//! ```

use std::time::{Duration, SystemTime};

/// Length of what [`write()`] appends.
pub const LENGTH: usize = 28;

/// Appends `time` as `2026-01-31T12:00:00.0000000Z`: always seven digits, always UTC. Times outside the years 1 to 9999
/// are written as the nearest one inside.
pub fn write(time: SystemTime, out: &mut String) {
    let (seconds, nanos) = match since_epoch(time) {
        early if early.0 < FIRST_SECOND => (FIRST_SECOND, 0),
        late if late.0 > LAST_SECOND => (LAST_SECOND, 999_999_999),
        inside => inside,
    };
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    for (number, digits, end) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (second / 3_600, 2, ':'),
        (second / 60 % 60, 2, ':'),
        (second % 60, 2, '.'),
        (i64::from(nanos / 100), 7, 'Z'),
    ] {
        let mut power = 10_i64.pow(digits - 1);
        while power > 0 {
            out.push(char::from(b'0' + (number / power % 10) as u8));
            power /= 10;
        }
        out.push(end);
    }
}

/// [`write()`] into a new string.
pub fn format(time: SystemTime) -> String {
    let mut out = String::with_capacity(LENGTH);
    write(time, &mut out);
    out
}

/// Reads an ISO 8601 time: any number of fractional digits or none, seconds optional, `Z`, an offset or nothing (which
/// means UTC), `T` or a space between date and time. `None` when it is not one.
pub fn parse(text: &str) -> Option<SystemTime> {
    let mut scan = Scan(text.trim().as_bytes());
    let year = scan.number(4)?;
    scan.skip(b"-")?;
    let month = scan.number(2)?;
    scan.skip(b"-")?;
    let day = scan.number(2)?;
    scan.skip(b"Tt ")?;
    let hour = scan.number(2)?;
    scan.skip(b":")?;
    let minute = scan.number(2)?;
    let (mut second, mut nanos) = (0, 0);
    if scan.skip(b":").is_some() {
        second = scan.number(2)?;
        if scan.skip(b".,").is_some() {
            nanos = scan.fraction()?;
        }
    }
    let offset = scan.offset()?;
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && year > 0
        && hour < 24
        && minute < 60
        && second <= 60
        && scan.0.is_empty();
    if !valid {
        return None;
    }
    // A leap second is read as the second before it.
    let of_day = hour * 3_600 + minute * 60 + second.min(59);
    from_epoch(days(year, month, day) * DAY + of_day - offset, nanos)
}

/// Whether [`write()`] can say `time` exactly (to 100 ns).
pub(crate) fn can_write(time: SystemTime) -> bool {
    (FIRST_SECOND..=LAST_SECOND).contains(&since_epoch(time).0)
}

/// Whole seconds since 1970, rounded down, and the nanoseconds on top.
pub(crate) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX).saturating_neg();
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds.saturating_sub(1), 1_000_000_000 - nanos),
            }
        }
    }
}

/// The time that [`since_epoch`] took apart; `None` when this platform cannot hold it.
pub(crate) fn from_epoch(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(whole),
        _ => SystemTime::UNIX_EPOCH.checked_sub(whole),
    }?;
    second.checked_add(Duration::from_nanos(u64::from(nanos)))
}

/// What is left to read.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    /// Exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    }

    /// One byte out of `any`.
    fn skip(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        any.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// One digit or more, as nanoseconds; digits beyond the ninth are dropped.
    fn fraction(&mut self) -> Option<u32> {
        let (mut nanos, mut place) = (0, 100_000_000);
        let mut some = None;
        while let Some(digit) = self.skip(b"0123456789") {
            nanos += u32::from(digit - b'0') * place;
            place /= 10;
            some = Some(nanos);
        }
        some
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.skip(b"Zz").is_some() {
            return Some(0);
        }
        let sign = if self.skip(b"+-")? == b'+' { 1 } else { -1 };
        let hours = self.number(2)?;
        let colon = self.skip(b":").is_some();
        let minutes = if colon || !self.0.is_empty() { self.number(2)? } else { 0 };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years start in March, so that a leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = (march + 2) % 12 + 1;
    (era * 400 + year + i64::from(month < 3), month, day)
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const DAY: i64 = 86_400;
/// Days in 400 years.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;
/// 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_goes_out() {
        let rows = [
            (0, 0, "1970-01-01T00:00:00.0000000Z"),
            (1_769_860_800, 0, "2026-01-31T12:00:00.0000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.9999999Z"),
            (951_782_400, 100, "2000-02-29T00:00:00.0000001Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.5000000Z"),
            (FIRST_SECOND, 0, "0001-01-01T00:00:00.0000000Z"),
            (FIRST_SECOND - 1, 0, "0001-01-01T00:00:00.0000000Z"),
            (LAST_SECOND + 1, 0, "9999-12-31T23:59:59.9999999Z"),
        ];
        for (seconds, nanos, text) in rows {
            let time = from_epoch(seconds, nanos).unwrap();
            assert_eq!(format(time), text);
            assert_eq!(text.len(), LENGTH);
        }
    }

    #[test]
    fn many_forms_come_in() {
        let noon = from_epoch(1_769_860_800, 0);
        for text in [
            "2026-01-31T12:00:00.0000000Z",
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00",
            "2026-01-31t12:00z",
            "2026-01-31 12:00:00.000",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T05:00:00-07:00",
            "2026-01-31T17:30:00,0+0530",
            "2026-01-31T13:00:00+01",
            " 2026-01-31T12:00:00.00000000000000Z ",
        ] {
            assert_eq!(parse(text), noon, "{text}");
        }
        assert_eq!(parse("2026-01-31T12:00:00.1234567Z"), from_epoch(1_769_860_800, 123_456_700));
        assert_eq!(parse("2016-12-31T23:59:60Z"), parse("2016-12-31T23:59:59Z"));
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2026-01-31",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "0000-01-01T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00Zx",
            "2026-01-31T12:00:00+1",
            "2026-01-31T12:00:00+01:",
            "2026-01-31T12:00:00+25:00",
            "١٩٧٠-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
