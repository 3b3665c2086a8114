//! `/devices/{id}/messages/events`: a device sends, the hub stores.
//!
//! A message is accepted when it is durable and not before. Messages are taken in while commits are under way, up to the
//! bounds in [`crate::limits::Limits`]; what the device may send is its credit. When the hub cannot store, it detaches the
//! link: a later message must not be stored when an earlier one of the link was not.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fe2o3_amqp_types::messaging::{Accepted, Body, DeliveryState};
use tokio::sync::futures::OwnedNotified;
use whimbrel::{
    Lane, Message,
    journal::Ticket,
    wire::{
        amqp::{self, BATCH_FORMAT},
        refusal::Refusal,
    },
};

use super::{
    Front,
    attach::Permit,
    codec, condition,
    engine::{Delivery, Ended, Terms},
    link::Incoming,
};
use crate::{access::Admitted, events::NewEvent, limits::Staging};

/// Messages a device may have unanswered.
const CREDIT: u32 = 1_000;
/// Messages of one batch.
const BATCH_MESSAGES: usize = 500;
/// Messages staged at once.
const TAKEN_MESSAGES: usize = 256;
/// What names and framing may add to a message of the full size.
const FRAMING_BYTES: usize = 64 * 1024;

/// Terms of such a link.
pub(super) fn terms(front: &Front) -> Terms {
    Terms {
        largest: front.limits.message_bytes.saturating_add(FRAMING_BYTES),
        credit: CREDIT,
        capabilities: Vec::new(),
    }
}

/// Takes in the events of a device until the link ends.
pub(super) async fn serve(front: Arc<Front>, link: Incoming, sender: Admitted, permit: Permit) {
    let mut intake = Intake {
        staging: Arc::clone(&front.staging),
        front,
        link,
        sender,
        waiting: VecDeque::new(),
        commit: None,
        room: None,
        staged: 0,
    };
    let failure = poll_fn(|cx| intake.poll(cx)).await;
    if let Some(error) = failure {
        intake.link.detach(condition::of(&error));
    }
    drop(permit);
}

type Commit = Pin<Box<dyn Future<Output = whimbrel::Result<()>> + Send>>;

struct Intake {
    front: Arc<Front>,
    staging: Arc<Staging>,
    link: Incoming,
    sender: Admitted,
    /// Staged messages that are not answered, oldest first.
    waiting: VecDeque<Waiting>,
    commit: Option<Commit>,
    room: Option<Pin<Box<OwnedNotified>>>,
    /// Bytes of those that wait.
    staged: usize,
}

/// Messages that were staged together.
struct Waiting {
    ticket: Ticket,
    bytes: usize,
    /// How many, answered or not.
    count: u32,
    /// Numbers of those that want an answer, as runs.
    runs: Vec<(u32, u32)>,
}

/// Messages taken in one go.
#[derive(Default)]
struct Taken {
    messages: Vec<Message>,
    bytes: usize,
    count: u32,
    runs: Vec<(u32, u32)>,
}

impl Intake {
    /// Ready when the link is over; with an error when the hub cannot store.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<whimbrel::Error>> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_commits(cx) {
                return Poll::Ready(Some(error));
            }
            let (taken, ended) = self.take(cx);
            if taken.count > 0
                && let Err(error) = self.stage(taken)
            {
                return Poll::Ready(Some(error));
            }
            match ended {
                Poll::Ready(Some(Ended::Detached)) => return Poll::Ready(None),
                Poll::Ready(Some(Ended::Stopping)) if self.waiting.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) => {}
                _ if self.commit.is_none() && !self.waiting.is_empty() => {}
                _ => return Poll::Pending,
            }
        }
    }

    /// Answers what is durable. Pending while more waits, or nothing does.
    fn poll_commits(&mut self, cx: &mut Context<'_>) -> Poll<whimbrel::Result<()>> {
        while let Some(head) = self.waiting.front() {
            let ticket = head.ticket;
            let commit = self.commit.get_or_insert_with(|| {
                let events = self.front.events.clone();
                Box::pin(async move { events.durable(ticket).await })
            });
            let Poll::Ready(outcome) = commit.as_mut().poll(cx) else { break };
            self.commit = None;
            outcome?;
            if let Some(done) = self.waiting.pop_front() {
                self.staged -= done.bytes;
                self.staging.release(done.bytes);
                for (first, last) in done.runs {
                    self.link.dispose(first, last, DeliveryState::Accepted(Accepted {}));
                }
                self.link.replenish(done.count);
            }
        }
        Poll::Pending
    }

    /// Takes what has arrived, as far as there is room. The second part: `Ready(None)` when there may be more.
    fn take(&mut self, cx: &mut Context<'_>) -> (Taken, Poll<Option<Ended>>) {
        let mut taken = Taken::default();
        while taken.messages.len() < TAKEN_MESSAGES
            && self.staged + taken.bytes < self.front.limits.connection_staged_bytes
        {
            if self.poll_room(cx).is_pending() {
                return (taken, Poll::Pending);
            }
            match self.link.poll_next(cx) {
                Poll::Ready(Ok(delivery)) => self.take_one(&delivery, &mut taken),
                Poll::Ready(Err(ended)) => return (taken, Poll::Ready(Some(ended))),
                Poll::Pending => return (taken, Poll::Pending),
            }
        }
        let more = taken.messages.len() >= TAKEN_MESSAGES;
        (taken, if more { Poll::Ready(None) } else { Poll::Pending })
    }

    /// Ready when another batch may be staged.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.staging.has_room() {
            let room = self.room.get_or_insert_with(|| Box::pin(self.staging.room()));
            // Looking again after asking to be woken closes the gap between the two.
            let woken = room.as_mut().poll(cx).is_ready();
            if !woken && !self.staging.has_room() {
                return Poll::Pending;
            }
            self.room = None;
        }
        Poll::Ready(())
    }

    fn take_one(&mut self, delivery: &Delivery, taken: &mut Taken) {
        let metrics = &self.front.metrics;
        let before = taken.messages.len();
        match read(delivery, self.front.limits.message_bytes, &mut taken.messages) {
            Ok(()) => {
                metrics.events.add((taken.messages.len() - before) as u64);
                taken.bytes += delivery.payload.len();
                taken.count += 1;
                if !delivery.settled {
                    match taken.runs.last_mut() {
                        Some((_, last)) if last.wrapping_add(1) == delivery.id && *last != u32::MAX => {
                            *last = delivery.id;
                        }
                        _ => taken.runs.push((delivery.id, delivery.id)),
                    }
                }
            }
            Err((row, text)) => {
                metrics.rejected.add(1);
                taken.messages.truncate(before);
                if !delivery.settled {
                    let refusal = condition::refusal(row, text);
                    self.link.dispose(delivery.id, delivery.id, condition::rejected(refusal));
                }
                self.link.replenish(1);
            }
        }
    }

    fn stage(&mut self, taken: Taken) -> whimbrel::Result<()> {
        let event = |message| NewEvent { sender: &self.sender, message, origin: None };
        let events: Vec<_> = taken.messages.iter().map(event).collect();
        let ticket = self.front.events.append(&events, &mut Vec::with_capacity(events.len()))?;
        let Taken { bytes, count, runs, .. } = taken;
        self.staged += bytes;
        self.staging.add(bytes);
        self.waiting.push_back(Waiting { ticket, bytes, count, runs });
        Ok(())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.staging.release(self.staged);
    }
}

/// The events of one delivery: one, or those of a batch.
fn read(delivery: &Delivery, limit: usize, out: &mut Vec<Message>) -> Result<(), (Refusal, &'static str)> {
    const TOO_LARGE: (Refusal, &str) = (Refusal::TOO_LARGE, "the message, or the batch, is too large");
    const UNREADABLE: (Refusal, &str) = (Refusal::ARGUMENT_INVALID, "the message cannot be read");
    if delivery.oversize {
        return Err(TOO_LARGE);
    }
    let message = codec::read_message(&delivery.payload).map_err(|_| UNREADABLE)?;
    let mut size = 0;
    let mut add = |message| {
        let message = amqp::decode(message, Lane::Telemetry).map_err(|_| UNREADABLE)?.message;
        size += message.size();
        if size > limit {
            return Err(TOO_LARGE);
        }
        out.push(message);
        Ok(())
    };
    if delivery.format != BATCH_FORMAT {
        return add(message);
    }
    let Body::Data(parts) = message.body else {
        return Err((Refusal::ARGUMENT_INVALID, "the body of a batch is data sections"));
    };
    for (index, part) in parts.into_iter().enumerate() {
        if index >= BATCH_MESSAGES {
            return Err((Refusal::ARGUMENT_INVALID, "a batch has at most 500 messages"));
        }
        add(codec::read_message(&part.0).map_err(|_| UNREADABLE)?)?;
    }
    Ok(())
}
