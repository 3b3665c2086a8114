//! What the AMQP front counts.

use crate::fronts::mqtt::{Counter, reasons};

reasons! {
    /// Why a connection ended before it was opened.
    Refused {
        /// There are too many connections.
        TooMany = "too_many_connections",
        /// It was not opened in time.
        Silent = "no_open",
        /// What came was not AMQP 1.0, or no TLS.
        Malformed = "malformed",
        /// Wrong credentials in the security layer.
        Unauthorized = "unauthorized",
        /// The hub is stopping.
        Stopping = "stopping",
    }
}

reasons! {
    /// Why an open connection ended.
    Closed {
        /// The client said close.
        Goodbye = "goodbye",
        /// The connection broke, or the client closed it without a word.
        Lost = "lost",
        /// Silent for too long.
        Idle = "idle",
        /// Its token ended, or it never brought one.
        Expired = "token_expired",
        /// It broke the protocol.
        Protocol = "protocol",
        /// The hub stopped.
        Stopped = "hub_stopped",
    }
}

/// Counters of the AMQP front.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections that were opened.
    pub(crate) connects: Counter,
    /// Links that were accepted.
    pub(crate) links: Counter,
    /// Links that were refused.
    pub(crate) refused_links: Counter,
    /// Events taken in, stored or still on their way.
    pub(crate) events: Counter,
    /// Messages rejected with a reason: events and commands.
    pub(crate) rejected: Counter,
    /// Commands taken in from services.
    pub(crate) commands: Counter,
    /// Commands sent to devices.
    pub(crate) delivered: Counter,
    /// Events sent to readers.
    pub(crate) read: Counter,
    /// Bytes read from connections.
    pub(crate) received_bytes: Counter,
    /// Bytes written to connections.
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

    /// Connections that were never opened, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Refused, u64)> + '_ {
        Refused::ALL.iter().copied().zip(self.refused.iter().map(Counter::get))
    }

    /// Connections that ended, by reason.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (Closed, u64)> + '_ {
        Closed::ALL.iter().copied().zip(self.closed.iter().map(Counter::get))
    }
}
