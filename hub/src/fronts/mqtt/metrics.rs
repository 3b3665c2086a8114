//! What the MQTT front counts. Plain atomics, added to once per batch.

use std::sync::atomic::{AtomicU64, Ordering};

use whimbrel::transport::Settlement;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($(#[$item:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $type { $($(#[$item])* $variant,)* }

        impl $type {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The label in metrics and logs.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

pub(crate) use reasons;

reasons! {
    /// Why a connection never became a session.
    Refused {
        /// There are too many connections.
        TooMany = "too_many_connections",
        /// No complete CONNECT in time.
        Silent = "no_connect",
        /// What came was not a CONNECT.
        Malformed = "malformed",
        /// A version of MQTT the hub does not speak.
        Version = "protocol_version",
        /// The client id is no device id.
        ClientId = "client_id",
        /// Wrong credentials.
        Unauthorized = "unauthorized",
        /// The will cannot be published by this device.
        Will = "will",
        /// The hub is stopping.
        Stopping = "stopping",
    }
}

reasons! {
    /// Why a session's connection ended.
    Closed {
        /// The client said goodbye.
        Goodbye = "goodbye",
        /// The connection broke, or the client closed it without a word.
        Lost = "lost",
        /// Silent for longer than its keep-alive allows.
        KeepAlive = "keep_alive",
        /// The same device connected again.
        TakenOver = "taken_over",
        /// The device was disabled, deleted, or its credentials changed.
        Revoked = "revoked",
        /// Its token ended.
        Expired = "token_expired",
        /// It broke the protocol.
        Protocol = "protocol",
        /// It published or subscribed where it may not.
        Topic = "topic",
        /// It sent a packet that is too large.
        TooLarge = "too_large",
        /// The hub could not store what it sent.
        Storage = "storage",
        /// The hub stopped.
        Stopped = "hub_stopped",
    }
}

/// Counters of the MQTT front.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Sessions that were opened.
    pub(crate) connects: Counter,
    /// Publications received, acknowledged ones and others.
    pub(crate) publishes: Counter,
    /// Publications that were answered by an acknowledgement.
    pub(crate) acknowledgements: Counter,
    /// Publications that were refused with a reason, on MQTT 5.
    pub(crate) rejected: Counter,
    /// Commands sent, those that were sent again included.
    pub(crate) commands_sent: Counter,
    /// Commands completed, by acknowledgement or, on quality of service 0, by sending.
    pub(crate) commands_completed: Counter,
    /// Commands abandoned, on MQTT 5.
    pub(crate) commands_abandoned: Counter,
    /// Commands rejected, by clients on MQTT 5 or because they fit into no packet the client takes.
    pub(crate) commands_rejected: Counter,
    /// Bytes read from sessions.
    pub(crate) received_bytes: Counter,
    /// Bytes written to sessions.
    pub(crate) sent_bytes: Counter,
    refused: [Counter; Refused::ALL.len()],
    closed: [Counter; Closed::ALL.len()],
}

impl Metrics {
    pub(crate) fn count_refused(&self, reason: Refused) {
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.add(1);
        }
    }

    pub(crate) fn count_closed(&self, reason: Closed) {
        if let Some(counter) = self.closed.get(reason as usize) {
            counter.add(1);
        }
    }

    /// A command was settled.
    pub(crate) fn count_settled(&self, settlement: Settlement) {
        let counter = match settlement {
            Settlement::Complete => &self.commands_completed,
            Settlement::Abandon => &self.commands_abandoned,
            Settlement::Reject => &self.commands_rejected,
        };
        counter.add(1);
    }

    /// Connections that never became a session, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL.iter().copied().zip(self.refused.iter().map(Counter::get))
    }

    /// Sessions whose connection ended, by reason.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (Closed, u64)> + '_ {
        Closed::ALL.iter().copied().zip(self.closed.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_under_their_own_name() {
        let metrics = Metrics::default();
        for reason in Closed::ALL {
            metrics.count_closed(*reason);
        }
        metrics.count_closed(Closed::Storage);
        for (reason, count) in metrics.closed() {
            assert_eq!(count, if reason == Closed::Storage { 2 } else { 1 }, "{}", reason.name());
        }
        metrics.count_refused(Refused::Will);
        assert_eq!(metrics.refused().filter(|(_, count)| *count > 0).count(), 1);
    }
}
