//! Values that cross seldom, as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use whimbrel::{
    Account, ConnectionState, Counters, Outcome, ReceiptState,
    service::{CommandOutcome, Feedback},
};

/// `{"accepted": …, "delivered": …, "expired": …, "dropped": …, "rejected": …, "queued": …}`
pub fn account(account: &Account) -> Value {
    let Account { accepted, delivered, expired, dropped, rejected, queued } = *account;
    json!({"accepted": accepted, "delivered": delivered, "expired": expired, "dropped": dropped,
        "rejected": rejected, "queued": queued})
}

/// The account, and `queued_alerts`, `queued_bytes`, `oldest_age_ms` (or null), `sent`, `dropped_by_reason`, `refused`,
/// `written_bytes`.
pub fn counters(counters: &Counters) -> Value {
    let by_reason = counters.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count)));
    json!({
        "account": account(&counters.account),
        "queued_alerts": counters.queued_alerts,
        "queued_bytes": counters.queued_bytes,
        "oldest_age_ms": counters.oldest_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "sent": counters.sent,
        "dropped_by_reason": Value::Object(by_reason.collect()),
        "refused": counters.refused,
        "written_bytes": counters.written_bytes,
    })
}

/// `{"outcome": "delivered", "partition": …, "sequence": …}` (or null each), `{"outcome": "expired"}`,
/// `{"outcome": "dropped", "reason": …}`, `{"outcome": "rejected", "reason": …}`
pub fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Delivered { partition, sequence } => {
            json!({"outcome": "delivered", "partition": partition, "sequence": sequence})
        }
        Outcome::Expired => json!({"outcome": "expired"}),
        Outcome::Dropped { reason } => json!({"outcome": "dropped", "reason": reason.name()}),
        Outcome::Rejected { reason } => json!({"outcome": "rejected", "reason": reason}),
        // The core has a new one: its name is better than nothing.
        other => json!({"outcome": format!("{other:?}")}),
    }
}

/// `{"state": "queued"}`, `sent`, `unknown`, or `settled` with the fields of [`outcome`].
pub fn receipt_state(state: &ReceiptState) -> Value {
    let word = match state {
        ReceiptState::Queued => "queued",
        ReceiptState::Sent => "sent",
        ReceiptState::Unknown => "unknown",
        ReceiptState::Settled(ended) => {
            let mut settled = outcome(ended);
            if let Some(fields) = settled.as_object_mut() {
                fields.insert("state".into(), "settled".into());
            }
            return settled;
        }
    };
    json!({"state": word})
}

/// `{"state": "connected"}`, `connecting`, `suspended`, `closed`, `disconnected` with `reason` (or null), `unauthorized` with `reason`.
pub fn connection_state(state: &ConnectionState) -> Value {
    match state {
        ConnectionState::Disconnected { reason } => json!({"state": "disconnected", "reason": reason}),
        ConnectionState::Connecting => json!({"state": "connecting", "reason": null}),
        ConnectionState::Connected => json!({"state": "connected", "reason": null}),
        ConnectionState::Unauthorized { reason } => json!({"state": "unauthorized", "reason": reason}),
        ConnectionState::Suspended => json!({"state": "suspended", "reason": null}),
        ConnectionState::Closed => json!({"state": "closed", "reason": null}),
        other => json!({"state": format!("{other:?}"), "reason": null}),
    }
}

/// `completed`, `rejected`, `expired`, `delivery-count-exceeded` or `purged`.
pub fn command_outcome(outcome: CommandOutcome) -> &'static str {
    match outcome {
        CommandOutcome::Completed => "completed",
        CommandOutcome::Rejected => "rejected",
        CommandOutcome::Expired => "expired",
        CommandOutcome::DeliveryCountExceeded => "delivery-count-exceeded",
        CommandOutcome::Purged => "purged",
    }
}

/// `message_id`, `device_id`, `generation`, `outcome` as [`command_outcome`] has it (null for a word that is not in the
/// contract), `ended_at_ms` (or null).
pub fn feedback(record: &Feedback) -> Value {
    json!({
        "message_id": record.original_message_id,
        "device_id": record.device_id,
        "generation": record.device_generation_id,
        "outcome": record.outcome().ok().map(command_outcome),
        "ended_at_ms": record.ended_at().map(unix_ms),
    })
}

/// Milliseconds since 1970, negative before.
pub fn unix_ms(time: SystemTime) -> i64 {
    let ms = |since: std::time::Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_value_has_its_words() {
        let delivered = Outcome::Delivered { partition: Some(1), sequence: None };
        let settled = receipt_state(&ReceiptState::Settled(delivered));
        let expected = json!({"state": "settled", "outcome": "delivered", "partition": 1, "sequence": null});
        assert_eq!(settled, expected);
        let reason = whimbrel::DropReason::MadeRoom;
        assert_eq!(outcome(&Outcome::Dropped { reason })["reason"], "made-room");
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(3)), -3);
        let record = Feedback::new("m", UNIX_EPOCH, CommandOutcome::Purged, "d", "g");
        assert_eq!(
            (&feedback(&record)["outcome"], &feedback(&record)["ended_at_ms"]),
            (&json!("purged"), &json!(0))
        );
        let figures = Counters { dropped: vec![(reason, 2)], ..Counters::default() };
        assert_eq!(counters(&figures)["dropped_by_reason"], json!({"made-room": 2}));
    }
}
