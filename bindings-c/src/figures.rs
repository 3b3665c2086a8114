//! What a device tells of itself in numbers.

use whimbrel::{Account, Counters, DropReason};

/// The account of an outbox over the whole life of its folder: accepted == delivered + expired + dropped + rejected + queued,
/// always.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct whimbrel_account {
    /// Messages taken in.
    pub accepted: u64,
    /// Durable at the hub.
    pub delivered: u64,
    /// Ended by their time to live.
    pub expired: u64,
    /// Given up by this side.
    pub dropped: u64,
    /// Refused by the hub.
    pub rejected: u64,
    /// Still here.
    pub queued: u64,
}

/// Figures of an outbox. Begin with WHIMBREL_COUNTERS_INIT.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct whimbrel_counters {
    /// Set by WHIMBREL_COUNTERS_INIT.
    pub size: usize,
    /// The account.
    pub account: whimbrel_account,
    /// Messages in the alert lane, part of account.queued.
    pub queued_alerts: u64,
    /// Bytes waiting on disk.
    pub queued_bytes: u64,
    /// Age of the oldest waiting message in milliseconds; -1 when none waits.
    pub oldest_age_ms: i64,
    /// Publishes handed to the network since opening, resends included.
    pub sent: u64,
    /// Dropped as the oldest when room was needed, over the whole life of the folder.
    pub dropped_made_room: u64,
    /// Dropped as the newest when there was no room, over the whole life of the folder.
    pub dropped_no_room: u64,
    /// Dropped because the record on the disk was damaged, over the whole life of the folder.
    pub dropped_damaged: u64,
    /// Refused because the outbox was full, since opening; they were never taken in.
    pub refused: u64,
    /// Bytes written to the disk since opening.
    pub written_bytes: u64,
}

impl From<Account> for whimbrel_account {
    fn from(account: Account) -> Self {
        let Account { accepted, delivered, expired, dropped, rejected, queued } = account;
        Self { accepted, delivered, expired, dropped, rejected, queued }
    }
}

impl From<&Counters> for whimbrel_counters {
    fn from(counters: &Counters) -> Self {
        let of = |reason| {
            let found = counters.dropped.iter().find(|(known, _)| *known == reason);
            found.map_or(0, |(_, count)| *count)
        };
        let age = counters.oldest_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        Self {
            size: size_of::<Self>(),
            account: counters.account.into(),
            queued_alerts: counters.queued_alerts,
            queued_bytes: counters.queued_bytes,
            oldest_age_ms: age.unwrap_or(-1),
            sent: counters.sent,
            dropped_made_room: of(DropReason::MadeRoom),
            dropped_no_room: of(DropReason::NoRoom),
            dropped_damaged: of(DropReason::Damaged),
            refused: counters.refused,
            written_bytes: counters.written_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_figure() {
        let dropped = DropReason::ALL.into_iter().zip([1, 2, 4]).collect();
        let figures = whimbrel_counters::from(&Counters { dropped, ..Counters::default() });
        assert_eq!(figures.dropped_made_room + figures.dropped_no_room + figures.dropped_damaged, 7);
        assert_eq!(figures.oldest_age_ms, -1);
    }
}
