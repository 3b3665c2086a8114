//! `/messages/devicebound`: a service sends commands. `properties.to` names the device.
//!
//! A command is accepted when it is on stable storage. Many may be under way: what a service may send is its credit, and
//! commands are answered as they become durable.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fe2o3_amqp_types::messaging::{Accepted, DeliveryState};
use futures_util::{Stream, stream::FuturesUnordered};
use tokio::task::unconstrained;
use whimbrel::{
    Lane, Message,
    wire::{
        amqp::{self, BATCH_FORMAT},
        refusal::Refusal,
    },
};

use super::{
    Front,
    address::command_target,
    attach::Permit,
    codec, condition,
    engine::{Delivery, Ended, Terms},
    link::Incoming,
};

/// Commands a service may have unanswered.
const CREDIT: u32 = 1_000;
/// What names and framing may add to a command of the full size.
const FRAMING_BYTES: usize = 64 * 1024;

/// Terms of such a link.
pub(super) fn terms() -> Terms {
    Terms { largest: whimbrel::message::C2D_LIMIT + FRAMING_BYTES, credit: CREDIT, capabilities: Vec::new() }
}

/// Takes in commands until the link ends.
pub(super) async fn serve(front: Arc<Front>, link: Incoming, permit: Permit) {
    let mut intake =
        Intake { front, link, sending: FuturesUnordered::new(), accepted: Vec::new(), stopping: false };
    poll_fn(|cx| intake.poll(cx)).await;
    drop(permit);
}

/// A command on its way to the disk: its number, unless nobody wants an answer.
type Sending = Pin<Box<dyn Future<Output = (Option<u32>, whimbrel::Result<()>)> + Send>>;

struct Intake {
    front: Arc<Front>,
    link: Incoming,
    sending: FuturesUnordered<Sending>,
    /// Numbers of those that are durable and not answered.
    accepted: Vec<u32>,
    stopping: bool,
}

impl Intake {
    /// Ready when the link is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let taken = match self.poll_take(cx) {
                Poll::Ready(Err(Ended::Detached)) => return Poll::Ready(()),
                Poll::Ready(Err(Ended::Stopping)) => {
                    self.stopping = true;
                    false
                }
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            self.poll_sending(cx);
            if self.stopping && self.sending.is_empty() {
                return Poll::Ready(());
            }
            if !taken {
                return Poll::Pending;
            }
        }
    }

    /// Takes one command that has arrived.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        /// Taken before those under way are looked at again.
        const AT_ONCE: usize = 64;
        for _ in 0..AT_ONCE {
            match self.link.poll_next(cx) {
                Poll::Ready(Ok(delivery)) => self.take(delivery),
                Poll::Ready(Err(ended)) => return Poll::Ready(Err(ended)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, delivery: Delivery) {
        let number = (!delivery.settled).then_some(delivery.id);
        match read(&delivery) {
            Ok((device, message)) => {
                let commands = self.front.commands.clone();
                self.front.metrics.commands.add(1);
                // Commands are handed in when their futures are first polled, in the order in which they came. A budget of
                // polls that ran out in between would let later ones overtake.
                self.sending.push(Box::pin(unconstrained(async move {
                    let sent = commands.send(&device, message).await;
                    (number, sent.map(drop))
                })));
            }
            Err((row, text)) => {
                self.refuse(number, condition::refusal(row, text));
                self.link.replenish(1);
            }
        }
    }

    /// Answers those that are durable, and those that were refused.
    fn poll_sending(&mut self, cx: &mut Context<'_>) {
        let mut done = 0;
        while let Poll::Ready(Some((number, outcome))) = Pin::new(&mut self.sending).poll_next(cx) {
            done += 1;
            match outcome {
                Ok(()) => self.accepted.extend(number),
                Err(error) => self.refuse(number, condition::of(&error)),
            }
        }
        self.accepted.sort_unstable();
        for run in self.accepted.chunk_by(|left, right| left.wrapping_add(1) == *right) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                self.link.dispose(*first, *last, DeliveryState::Accepted(Accepted {}));
            }
        }
        self.accepted.clear();
        if done > 0 {
            self.link.replenish(done);
        }
    }

    fn refuse(&self, number: Option<u32>, error: fe2o3_amqp_types::definitions::Error) {
        self.front.metrics.rejected.add(1);
        if let Some(number) = number {
            self.link.dispose(number, number, condition::rejected(error));
        }
    }
}

fn read(delivery: &Delivery) -> Result<(String, Message), (Refusal, &'static str)> {
    const UNREADABLE: (Refusal, &str) = (Refusal::ARGUMENT_INVALID, "the message cannot be read");
    if delivery.oversize {
        return Err((Refusal::TOO_LARGE, "a command is at most 64 KB"));
    }
    if delivery.format == BATCH_FORMAT {
        return Err((Refusal::ARGUMENT_INVALID, "commands come one by one"));
    }
    let sections = codec::read_message(&delivery.payload).map_err(|_| UNREADABLE)?;
    let message = amqp::decode(sections, Lane::Telemetry).map_err(|_| UNREADABLE)?.message;
    let device = message
        .system()
        .to
        .as_deref()
        .and_then(command_target)
        .ok_or((Refusal::INVALID_OPERATION, "'to' has to be /devices/{id}/messages/devicebound"))?;
    Ok((device, message))
}
