//! `/devices/{id}/messages/devicebound`: a device receives its commands and says what became of them.
//!
//! A command is locked when there is credit for it and not before; the delivery tag is its lock token. What the device
//! says settles it; with settle mode second the hub answers when that is on stable storage, or that the lock was lost.
//! When the link ends, what is locked goes back to the queue at once, without counting.
//!
//! `modified` is `released`, with undeliverable-here `rejected`. A device that asks for settled messages gets them
//! completed by sending. One that settles without saying an outcome has released.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use fe2o3_amqp_types::{
    definitions::{Error, SenderSettleMode},
    messaging::{DeliveryState, MessageAnnotations, Released},
    primitives::Value,
};
use futures_util::{Stream, stream::FuturesUnordered};
use whimbrel::{
    ErrorKind,
    wire::amqp::{self, annotation},
};

use super::{
    Front,
    attach::Permit,
    codec, condition,
    engine::{Disposition, Ended, Terms},
    link::Outgoing,
};
use crate::commands::{Delivery, LockToken, Receiver, Settlement};

/// Commands locked at once for one link, at most: more than a queue holds by default.
const AT_ONCE: u32 = 100;

/// Terms of such a link.
pub(super) fn terms() -> Terms {
    Terms { largest: whimbrel::message::C2D_LIMIT + 64 * 1024, credit: 0, capabilities: Vec::new() }
}

/// Sends the commands of a device until the link ends.
pub(super) async fn serve(front: Arc<Front>, link: Outgoing, commands: Receiver, permit: Permit) {
    let settled = link.attach().snd_settle_mode == SenderSettleMode::Settled;
    let mut push = Push {
        front,
        link,
        commands,
        settled,
        sent: HashMap::new(),
        answers: FuturesUnordered::new(),
        batch: Vec::new(),
        stopping: false,
    };
    if let Some(error) = poll_fn(|cx| push.poll(cx)).await {
        push.link.detach(error);
    }
    drop(permit);
}

/// The settlement an outcome stands for.
pub(super) fn settlement(state: Option<&DeliveryState>) -> Settlement {
    match state {
        Some(DeliveryState::Accepted(_)) => Settlement::Complete,
        Some(DeliveryState::Rejected(_)) => Settlement::Reject,
        Some(DeliveryState::Modified(modified)) if modified.undeliverable_here == Some(true) => {
            Settlement::Reject
        }
        _ => Settlement::Abandon,
    }
}

/// What the hub answers when it has settled, or could not.
pub(super) fn answer(said: Option<DeliveryState>, outcome: &whimbrel::Result<()>) -> DeliveryState {
    match outcome {
        Ok(()) => said.unwrap_or(DeliveryState::Released(Released {})),
        Err(error) if error.kind() == ErrorKind::LockLost => condition::rejected(condition::lock_lost()),
        Err(error) => condition::rejected(condition::of(error)),
    }
}

/// A settlement on its way to the disk, and what the device waits for, if it does.
type Answer =
    Pin<Box<dyn Future<Output = (Option<(u32, Option<DeliveryState>)>, whimbrel::Result<()>)> + Send>>;

struct Push {
    front: Arc<Front>,
    link: Outgoing,
    commands: Receiver,
    /// Whether commands go out settled.
    settled: bool,
    /// Locks of what was sent and not settled, by number.
    sent: HashMap<u32, LockToken>,
    answers: FuturesUnordered<Answer>,
    batch: Vec<Delivery>,
    stopping: bool,
}

impl Push {
    /// Ready when the link is over; with an error when it is to be detached with it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        if self.poll_dispositions(cx).is_ready() {
            return Poll::Ready(None);
        }
        while let Poll::Ready(Some((waits, outcome))) = Pin::new(&mut self.answers).poll_next(cx) {
            if let Err(error) = &outcome
                && error.kind() != ErrorKind::LockLost
            {
                tracing::warn!(%error, "a settlement was not stored; the command comes again");
            }
            if let Some((number, said)) = waits {
                self.link.settle(number, answer(said, &outcome));
            }
        }
        if self.stopping {
            return if self.answers.is_empty() { Poll::Ready(None) } else { Poll::Pending };
        }
        loop {
            match ready!(self.poll_send(cx)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Closed => {
                    self.stopping = true;
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Some(condition::of(&error))),
            }
        }
    }

    /// Ready when the link is gone.
    fn poll_dispositions(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.link.poll_disposition(cx)) {
                Ok(disposition) => self.settle(disposition),
                Err(Ended::Detached) => return Poll::Ready(()),
                Err(Ended::Stopping) => {
                    self.stopping = true;
                    return Poll::Pending;
                }
            }
        }
    }

    fn settle(&mut self, Disposition { id, state, settled }: Disposition) {
        // Said twice: the first time counts.
        let Some(lock) = self.sent.remove(&id) else { return };
        let durable = self.commands.settle(lock, settlement(state.as_ref()));
        let waits = (!settled).then_some((id, state));
        self.answers.push(Box::pin(async move { (waits, durable.await) }));
    }

    /// Sends what is waiting, as far as there is credit. Never ready with success twice for nothing.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<whimbrel::Result<()>> {
        let Ok(usable) = ready!(self.link.poll_usable(cx)) else { return Poll::Pending };
        let received = self.commands.poll_next(cx, usable.min(AT_ONCE) as usize, &mut self.batch);
        if received.is_pending() && self.link.wants_drained() {
            self.link.drained();
        }
        ready!(received)?;
        for delivery in self.batch.drain(..) {
            let payload = match encode(&delivery) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(%error, sequence = delivery.sequence, "a command could not be encoded");
                    continue;
                }
            };
            let Ok(number) = self.link.send(&delivery.lock.to_bytes_le(), 0, self.settled, &payload) else {
                continue;
            };
            self.front.metrics.delivered.add(1);
            if self.settled {
                let durable = self.commands.settle(delivery.lock, Settlement::Complete);
                self.answers.push(Box::pin(async move { (None, durable.await) }));
            } else {
                self.sent.insert(number, delivery.lock);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn encode(delivery: &Delivery) -> Result<Vec<u8>, serde_amqp::Error> {
    let mut sections = amqp::encode(&delivery.message);
    let annotations = &mut sections.message_annotations.get_or_insert_with(MessageAnnotations::default).0;
    amqp::annotate(annotations, annotation::SEQUENCE, Value::Ulong(delivery.sequence));
    amqp::annotate(
        annotations,
        annotation::ENQUEUED_AT,
        Value::Timestamp(amqp::timestamp(delivery.enqueued_at)),
    );
    let count = u8::try_from(delivery.delivery_count).unwrap_or(u8::MAX);
    amqp::annotate(annotations, annotation::DELIVERY_COUNT, Value::Ubyte(count));
    amqp::annotate(annotations, annotation::LOCK, Value::Uuid(uuid(delivery.lock).into()));
    codec::encode_message(&sections)
}

/// A lock token as AMQP has a UUID: all fields big-endian.
fn uuid(lock: LockToken) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = lock.to_bytes_le();
    let mut uuid = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(end) = uuid.last_chunk_mut::<8>() {
        *end = rest;
    }
    uuid
}
