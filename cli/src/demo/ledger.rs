//! The account of the demo: what the devices say they had accepted, held against what a reader found at the hub.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde::Serialize;
use whimbrel::Lane;

use super::{
    commands::CommandLine,
    protocol::{Id, Standing},
};

/// What is known of every device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: Vec<Book>,
    cut: Option<Cut>,
}

/// What is known of one device.
#[derive(Debug, Default)]
struct Book {
    device: String,
    /// Messages for which the device said that `send` had returned.
    confirmed: HashSet<Id>,
    /// Messages that were read back.
    found: HashMap<Id, Arrival>,
    /// Newest message read, per lane.
    newest: [Option<Id>; 2],
    duplicates: u64,
    out_of_order: u64,
    /// The outbox's own account, told when it was closed.
    last: Option<Standing>,
    /// What was confirmed while the network was cut, in that order.
    waited: Vec<Id>,
}

/// When the reader first had a message.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// How many of this device came before it.
    place: usize,
    at: Instant,
}

/// A time without network.
#[derive(Clone, Copy, Debug)]
struct Cut {
    restored: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(devices: impl IntoIterator<Item = String>) -> Self {
        let books = devices.into_iter().map(|device| Book { device, ..Book::default() }).collect();
        Self { books, cut: None }
    }

    /// The network is cut: what is accepted from now on waits.
    pub(super) fn network_cut(&mut self) {
        self.cut = Some(Cut { restored: None });
    }

    /// The network is back.
    pub(super) fn network_restored(&mut self, now: Instant) {
        if let Some(cut) = &mut self.cut {
            cut.restored.get_or_insert(now);
        }
    }

    /// A device said that these were accepted.
    pub(super) fn confirmed(&mut self, device: usize, ids: &[Id]) {
        let waiting = self.cut.is_some_and(|cut| cut.restored.is_none());
        if let Some(book) = self.books.get_mut(device) {
            book.confirmed.extend(ids);
            if waiting {
                book.waited.extend(ids);
            }
        }
    }

    /// The outbox of a device was closed with this account.
    pub(super) fn closed(&mut self, device: usize, standing: Standing) {
        if let Some(book) = self.books.get_mut(device) {
            book.last = Some(standing);
        }
    }

    /// The reader found a message. Whether it belongs to the demo.
    pub(super) fn found(&mut self, device: &str, id: Id, now: Instant) -> bool {
        let Some(book) = self.books.iter_mut().find(|book| book.device == device) else { return false };
        if book.found.contains_key(&id) {
            book.duplicates += 1;
            return true;
        }
        book.found.insert(id, Arrival { place: book.found.len(), at: now });
        let [telemetry, alert] = &mut book.newest;
        let newest = if id.lane == Lane::Alert { alert } else { telemetry };
        match newest {
            Some(newest) if *newest > id => book.out_of_order += 1,
            _ => *newest = Some(id),
        }
        true
    }

    /// Distinct messages of a device that the reader found: telemetry and alerts, then alerts alone.
    pub(super) fn read(&self, device: usize) -> (u64, u64) {
        let Some(book) = self.books.get(device) else { return (0, 0) };
        let alerts = book.found.keys().filter(|id| id.lane == Lane::Alert).count();
        (book.found.len() as u64, alerts as u64)
    }

    /// Whether the reader has found everything that was delivered, so that waiting longer can change nothing.
    pub(super) fn complete(&self) -> bool {
        self.books.iter().all(|book| {
            book.last.as_ref().is_some_and(|last| book.found.len() as u64 >= last.delivered)
                && book.missing() == 0
        })
    }

    /// The account, to be read at the end, with what became of the commands.
    pub(super) fn report(&self, commands: Vec<CommandLine>) -> Report {
        let devices: Vec<Line> = self.books.iter().map(Book::line).collect();
        let total =
            devices.iter().fold(Line { device: "total".into(), closed: true, ..Line::default() }, Line::plus);
        let balanced = total.balanced()
            && devices.iter().all(Line::balanced)
            && commands.iter().all(CommandLine::is_right);
        Report { balanced, total, devices, alerts_first: self.alerts_first(), commands }
    }

    /// How alerts and telemetry that waited for the network came in, once their device was through again.
    fn alerts_first(&self) -> Option<AlertsFirst> {
        let restored = self.cut?.restored?;
        let (mut alerts, mut telemetry, mut ahead) = (Vec::new(), Vec::new(), 0);
        for book in &self.books {
            let arrived = book.waited.iter().filter_map(|id| Some((id.lane, *book.found.get(id)?)));
            // What the device said last before the cut may be told of after it.
            let arrived: Vec<(Lane, Arrival)> =
                arrived.filter(|(_, arrival)| arrival.at >= restored).collect();
            let Some(through) = arrived.iter().map(|(_, arrival)| arrival.at).min() else { continue };
            let first_telemetry = arrived
                .iter()
                .filter(|(lane, _)| *lane == Lane::Telemetry)
                .map(|(_, arrival)| arrival.place)
                .min();
            for (lane, Arrival { place, at }) in arrived {
                if lane == Lane::Alert {
                    alerts.push(at - through);
                    ahead += usize::from(first_telemetry.is_none_or(|first| place < first));
                } else {
                    telemetry.push(at - through);
                }
            }
        }
        Some(AlertsFirst {
            alerts: alerts.len(),
            ahead,
            telemetry: telemetry.len(),
            alerts_median_ms: median_ms(&mut alerts)?,
            telemetry_median_ms: median_ms(&mut telemetry)?,
        })
    }
}

impl Book {
    /// Confirmed messages that the reader has not found.
    fn missing(&self) -> u64 {
        self.confirmed.iter().filter(|id| !self.found.contains_key(id)).count() as u64
    }

    fn line(&self) -> Line {
        let last = self.last.clone().unwrap_or_default();
        let (confirmed, read) = (self.confirmed.len() as u64, self.found.len() as u64);
        // What the outbox still holds, or has given up and said so, is not lost. Everything it calls delivered must be at
        // the hub, and everything it once confirmed must be somewhere.
        let lost = last
            .delivered
            .saturating_sub(read)
            .max(self.missing().saturating_sub(last.queued + last.given_up()));
        Line {
            device: self.device.clone(),
            closed: self.last.is_some() && last.balances(),
            accepted: last.accepted,
            delivered: last.delivered,
            expired: last.expired,
            dropped: last.dropped,
            rejected: last.rejected,
            queued: last.queued,
            read,
            unconfirmed: last.accepted.saturating_sub(confirmed),
            lost: lost.max(confirmed.saturating_sub(last.accepted)),
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
        }
    }
}

/// The account of the demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// Whether it all adds up, nothing is lost, doubled or out of order, and every command ended as it had to.
    pub(super) balanced: bool,
    pub(super) total: Line,
    pub(super) devices: Vec<Line>,
    pub(super) alerts_first: Option<AlertsFirst>,
    pub(super) commands: Vec<CommandLine>,
}

/// The account of a device, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) device: String,
    /// Whether its outbox was closed and its own account added up.
    pub(super) closed: bool,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) expired: u64,
    pub(super) dropped: u64,
    pub(super) rejected: u64,
    pub(super) queued: u64,
    /// Distinct messages the reader found.
    pub(super) read: u64,
    /// Accepted, but killed before the device process could say so.
    pub(super) unconfirmed: u64,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
}

impl Line {
    /// Whether nothing is wrong with it.
    pub(super) fn balanced(&self) -> bool {
        let sum = self.delivered + self.expired + self.dropped + self.rejected + self.queued;
        self.closed && self.accepted == sum && self.lost + self.duplicates + self.out_of_order == 0
    }

    fn plus(mut self, other: &Self) -> Self {
        self.closed &= other.closed;
        for (sum, more) in [
            (&mut self.accepted, other.accepted),
            (&mut self.delivered, other.delivered),
            (&mut self.expired, other.expired),
            (&mut self.dropped, other.dropped),
            (&mut self.rejected, other.rejected),
            (&mut self.queued, other.queued),
            (&mut self.read, other.read),
            (&mut self.unconfirmed, other.unconfirmed),
            (&mut self.lost, other.lost),
            (&mut self.duplicates, other.duplicates),
            (&mut self.out_of_order, other.out_of_order),
        ] {
            *sum += more;
        }
        self
    }
}

/// Messages that waited while the network was cut: how long after the first one of their device the reader had them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct AlertsFirst {
    pub(super) alerts: usize,
    /// Alerts that came before every measurement of their device.
    pub(super) ahead: usize,
    pub(super) alerts_median_ms: u64,
    pub(super) telemetry: usize,
    pub(super) telemetry_median_ms: u64,
}

fn median_ms(times: &mut [Duration]) -> Option<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| time.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(lane: Lane, number: u64) -> Id {
        Id { lane, life: 1, number }
    }

    fn telemetry(number: u64) -> Id {
        id(Lane::Telemetry, number)
    }

    fn standing(accepted: u64, delivered: u64, queued: u64) -> Standing {
        Standing { accepted, delivered, queued, ..Standing::default() }
    }

    /// A device that had three messages confirmed, of which those numbered in `found` were read.
    fn three(found: &[u64], last: Standing) -> Report {
        let mut ledger = Ledger::new(["d".to_owned()]);
        ledger.confirmed(0, &[telemetry(1), telemetry(2), telemetry(3)]);
        for number in found {
            assert!(ledger.found("d", telemetry(*number), Instant::now()));
        }
        ledger.closed(0, last);
        ledger.report(Vec::new())
    }

    #[test]
    fn what_was_confirmed_and_found_balances() {
        let report = three(&[1, 2, 3], standing(3, 3, 0));
        assert!(report.balanced, "{report:?}");
        assert_eq!(report.total.accepted, 3);
    }

    #[test]
    fn what_was_accepted_but_never_said_is_counted_apart() {
        let report = three(&[1, 2, 3, 4], standing(4, 4, 0));
        assert!(report.balanced);
        assert_eq!(report.total.unconfirmed, 1);
    }

    #[test]
    fn a_delivered_message_that_is_not_there_is_lost() {
        let report = three(&[1, 3], standing(3, 3, 0));
        assert!(!report.balanced);
        assert_eq!(report.total.lost, 1);
    }

    #[test]
    fn a_message_the_outbox_forgot_is_lost() {
        let report = three(&[1, 2], standing(2, 2, 0));
        assert_eq!(report.total.lost, 1);
        assert!(!report.balanced);
    }

    #[test]
    fn what_is_queued_is_not_lost() {
        let report = three(&[1, 2], standing(3, 2, 1));
        assert!(report.balanced, "{report:?}");
        assert_eq!(report.total.queued, 1);
    }

    #[test]
    fn a_command_that_ended_otherwise_is_seen() {
        let line = |outcome: &str| CommandLine {
            device: "d".into(),
            body: "calibrate",
            expected: "completed",
            outcome: Some(outcome.into()),
            after_ms: None,
        };
        let mut ledger = Ledger::new(["d".to_owned()]);
        ledger.closed(0, standing(0, 0, 0));
        assert!(ledger.report(vec![line("completed")]).balanced);
        assert!(!ledger.report(vec![line("completed"), line("expired")]).balanced);
        assert!(!ledger.report(vec![CommandLine { outcome: None, ..line("") }]).balanced);
    }

    #[test]
    fn duplicates_swaps_and_a_crooked_account_are_seen() {
        assert_eq!(three(&[1, 1, 2, 3], standing(3, 3, 0)).total.duplicates, 1);
        assert_eq!(three(&[2, 1, 3], standing(3, 3, 0)).total.out_of_order, 1);
        assert!(!three(&[1, 2, 3], standing(4, 3, 0)).balanced);
        let mut silent = Ledger::new(["d".to_owned()]);
        assert!(!silent.report(Vec::new()).balanced, "a device that never closed its outbox has no account");
        assert!(!silent.found("stranger", telemetry(1), Instant::now()));
    }

    #[test]
    fn alerts_that_waited_overtake_measurements_that_waited() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let alert = id(Lane::Alert, 1);
        let mut ledger = Ledger::new(["d".to_owned(), "late".to_owned()]);
        ledger.confirmed(0, &[telemetry(1)]);
        ledger.network_cut();
        ledger.confirmed(0, &[telemetry(2), telemetry(3), alert, telemetry(4)]);
        let slow = id(Lane::Alert, 2);
        ledger.confirmed(1, &[telemetry(1), alert, slow]);
        ledger.network_restored(start);
        ledger.confirmed(0, &[telemetry(5)]);
        for (id, ms) in [(alert, 10), (telemetry(2), 20), (telemetry(3), 30), (telemetry(4), 40)] {
            ledger.found("d", id, after(ms));
        }
        for (id, ms) in [(alert, 500), (telemetry(1), 590), (slow, 600)] {
            ledger.found("late", id, after(ms));
        }
        let expected =
            AlertsFirst { alerts: 3, ahead: 2, alerts_median_ms: 0, telemetry: 4, telemetry_median_ms: 30 };
        assert_eq!(ledger.report(Vec::new()).alerts_first, Some(expected));
    }
}
