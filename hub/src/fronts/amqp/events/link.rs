//! A link that events are read on: from the log to the peer, as fast as its credit allows.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::SystemTime,
};

use fe2o3_amqp_types::{
    definitions::{Error, LinkError, SenderSettleMode},
    messaging::{Accepted, DeliveryState},
};
use whimbrel::ErrorKind;

use super::{
    encode::{Metric, encode},
    seats::Seat,
};
use crate::{
    events::{Event, EventReader, Events, ReadLimit},
    fronts::amqp::{condition, engine::Ended, link::Outgoing},
};

/// A reader at work.
pub(super) struct EventLink {
    link: Outgoing,
    reader: EventReader,
    seat: Seat,
    /// For readers that want to know how far the partition is: the log and the partition.
    watched: Option<(Events, u32)>,
    settled: bool,
    /// Number of the next delivery: its tag.
    next_tag: u64,
    /// Read and not sent yet, the next one last.
    ahead: Vec<Event>,
    encoded: Vec<u8>,
}

/// Why a link ends.
enum End {
    /// The peer is gone, or does not need to be told.
    Silent,
    Because(Error),
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Detached => Self::Silent,
            Ended::Stopping => Self::Because(stopping()),
        }
    }
}

impl EventLink {
    pub(super) fn new(
        link: Outgoing,
        reader: EventReader,
        seat: Seat,
        watched: Option<(Events, u32)>,
    ) -> Self {
        // What becomes of an event changes nothing here: unless the peer insists, it need not say.
        let settled = link.attach().snd_settle_mode != SenderSettleMode::Unsettled;
        Self { link, reader, seat, watched, settled, next_tag: 0, ahead: Vec::new(), encoded: Vec::new() }
    }

    /// Sends events until the link ends. Cancelling detaches it.
    pub(super) async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        if let End::Because(error) = end {
            self.link.detach(error);
        }
    }

    /// Reads some events and sends them.
    async fn step(&mut self) -> Result<(), End> {
        if self.ahead.is_empty() {
            self.read().await?;
        }
        let metric = self.watched.as_ref().and_then(|(events, partition)| {
            let state = events.partitions().into_iter().find(|state| state.partition == *partition)?;
            Some(Metric { state, at: SystemTime::now() })
        });
        while !self.ahead.is_empty() {
            let usable = self.room().await?;
            self.send(usable, metric.as_ref())?;
        }
        Ok(())
    }

    /// Waits for events.
    async fn read(&mut self) -> Result<(), End> {
        let Self { link, reader, seat, ahead, .. } = self;
        let read = tokio::select! {
            biased;
            () = seat.lost().cancelled() => return Err(End::Because(stolen())),
            read = reader.next_within(READ, ahead) => read,
            // After reading: a peer that drains the link gets first what there is.
            ended = poll_fn(|cx| poll_ended(link, cx)) => return Err(ended.into()),
        };
        ahead.reverse();
        read.map_err(|error| {
            End::Because(match error.kind() {
                ErrorKind::Closed => stopping(),
                _ => condition::of(&error),
            })
        })
    }

    /// Waits until something may be sent; how many events that are.
    async fn room(&mut self) -> Result<u32, End> {
        let Self { link, seat, .. } = self;
        tokio::select! {
            biased;
            () = seat.lost().cancelled() => Err(End::Because(stolen())),
            usable = poll_fn(|cx| {
                // Only looked at in passing: the end of the link is told below as well.
                let _ = poll_dispositions(link, cx);
                link.poll_usable(cx)
            }) => usable.map_err(End::from),
        }
    }

    /// Sends up to `usable` of the events that were read, and not more than fits well into the connection's buffer.
    fn send(&mut self, usable: u32, metric: Option<&Metric>) -> Result<(), End> {
        let mut sent = 0;
        for _ in 0..usable {
            let Some(event) = self.ahead.pop() else { return Ok(()) };
            self.encoded.clear();
            if let Err(error) = encode(&event, metric, &mut self.encoded) {
                tracing::error!(%error, partition = event.partition, offset = event.offset, "an event cannot be read");
                continue;
            }
            let tag = self.next_tag.to_be_bytes();
            self.next_tag += 1;
            self.link.send(&tag, 0, self.settled, &self.encoded)?;
            sent += self.encoded.len();
            if sent >= SEND_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Ready when the link has ended. Until then, answers what the peer disposed of, and a peer that drains the link: there
/// is nothing now.
fn poll_ended(link: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Ended> {
    let ended = poll_dispositions(link, cx);
    if ended.is_pending() && link.wants_drained() {
        link.drained();
    }
    ended
}

/// Takes what the peer did about events it was sent: whatever it was, the hub agrees. Ready when the link has ended.
fn poll_dispositions(link: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Ended> {
    loop {
        match link.poll_disposition(cx) {
            Poll::Ready(Ok(disposition)) if disposition.settled => {}
            Poll::Ready(Ok(disposition)) => {
                let state = disposition.state.unwrap_or(DeliveryState::Accepted(Accepted {}));
                link.settle(disposition.id, state);
            }
            Poll::Ready(Err(ended)) => return Poll::Ready(ended),
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn stolen() -> Error {
    let text =
        "another reader, of the same or a higher epoch, has taken this partition for the consumer group";
    Error::new(LinkError::Stolen, text.to_owned(), None)
}

fn stopping() -> Error {
    Error::new(LinkError::DetachForced, "the hub is stopping".to_owned(), None)
}

/// Read in one go. A reader that is slow keeps no more than this in memory.
const READ: ReadLimit = ReadLimit { events: 512, bytes: 256 * 1024 };
/// Sent before the connection is asked again for room.
const SEND_BYTES: usize = 64 * 1024;
