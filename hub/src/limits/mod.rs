//! Bounds on what connections may use: how many, how large, how long, and how many bytes may wait for the disk.

mod throttle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, futures::OwnedNotified};

pub(crate) use throttle::Throttle;

/// Settings of the device connections. The defaults are those of Azure IoT Hub where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. More are closed as soon as they are accepted. Default 100,000.
    pub connections: usize,
    /// Largest event: body and properties as [`whimbrel::Message::size`] counts. Default 262,144 bytes.
    pub message_bytes: usize,
    /// Largest CONNECT packet, will included: what a stranger may make the hub hold. Default 65,536 bytes.
    pub connect_bytes: usize,
    /// Time for the TLS handshake and the first packet. Default 30 s.
    pub first_packet: Duration,
    /// Publications a MQTT 5 client may have unacknowledged. Default 16.
    pub receive_maximum: u16,
    /// The same for clients that offer de-duplication, which is to say our own. Default 1,000.
    pub receive_maximum_outbox: u16,
    /// Commands a client on MQTT may have unacknowledged; fewer when its own Receive Maximum says so. Default 16.
    pub command_window: u16,
    /// Bytes one connection may have waiting for the disk before the hub stops reading from it. Default 1 MiB.
    pub connection_staged_bytes: usize,
    /// Bytes all connections together may have waiting for the disk. Default 64 MiB.
    pub staged_bytes: usize,
    /// How long a connection outlives the token it was opened with. Default 10 min.
    pub token_grace: Duration,
    /// Longest silence of a connection, whatever keep-alive it asked for. Default 1,767 s.
    pub silence: Duration,
    /// How long a closing connection waits for its last commits and for the other side to read. Default 5 s.
    pub closing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            message_bytes: whimbrel::message::D2C_LIMIT,
            connect_bytes: 65_536,
            first_packet: Duration::from_secs(30),
            receive_maximum: 16,
            receive_maximum_outbox: 1_000,
            command_window: 16,
            connection_staged_bytes: 1024 * 1024,
            staged_bytes: 64 * 1024 * 1024,
            token_grace: Duration::from_secs(600),
            silence: Duration::from_secs(1767),
            closing: Duration::from_secs(5),
        }
    }
}

/// Counts the bytes that wait for the disk, over all connections.
#[derive(Debug)]
pub(crate) struct Staging {
    limit: usize,
    staged: AtomicUsize,
    room: Arc<Notify>,
}

impl Staging {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, staged: AtomicUsize::new(0), room: Arc::new(Notify::new()) }
    }

    /// Whether another batch may be staged. One batch may overshoot the limit, so that any batch fits.
    pub(crate) fn has_room(&self) -> bool {
        self.staged.load(Ordering::Acquire) < self.limit
    }

    /// Resolves after room was made; look again then.
    pub(crate) fn room(&self) -> OwnedNotified {
        Arc::clone(&self.room).notified_owned()
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.staged.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn release(&self, bytes: usize) {
        let before = self.staged.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.room.notify_waiters();
        }
    }

    /// Bytes waiting now.
    pub(crate) fn staged(&self) -> usize {
        self.staged.load(Ordering::Acquire)
    }
}

/// Counts connections and knows when the last one has ended.
#[derive(Debug, Default)]
pub(crate) struct Census {
    open: AtomicUsize,
    empty: Notify,
}

impl Census {
    /// Counts one connection in, unless there are `limit` already. Dropping the result counts it out.
    pub(crate) fn enter(self: &Arc<Self>, limit: usize) -> Option<Counted> {
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1))
            .ok()
            .map(|_| Counted(Arc::clone(self)))
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until there are none.
    pub(crate) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.open() == 0 {
                return;
            }
            empty.await;
        }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Census>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn staging_wakes_when_the_bytes_fall_below_the_limit() {
        let staging = Staging::new(100);
        staging.add(90);
        assert!(staging.has_room(), "90 of 100 leaves room for one more batch");
        staging.add(50);
        assert!(!staging.has_room());
        let room = staging.room();
        tokio::pin!(room);
        assert!(room.as_mut().now_or_never().is_none());
        staging.release(30);
        assert!(room.as_mut().now_or_never().is_none(), "110 of 100 is still too much");
        staging.release(30);
        assert!(room.as_mut().now_or_never().is_some());
        assert_eq!(staging.staged(), 80);
    }

    #[tokio::test]
    async fn census_refuses_over_the_limit_and_tells_when_it_is_empty() {
        let census = Arc::new(Census::default());
        let first = census.enter(1).unwrap();
        assert!(census.enter(1).is_none());
        let emptied = census.emptied();
        tokio::pin!(emptied);
        assert!(emptied.as_mut().now_or_never().is_none());
        drop(first);
        assert!(emptied.as_mut().now_or_never().is_some());
    }
}
