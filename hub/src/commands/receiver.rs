//! Receiving the commands of one device.

use std::{
    fmt,
    future::Future,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;
use whimbrel::{Error, ErrorKind, Message, Result, outbox::Now};

use super::{
    Delivery, LockToken, Settlement,
    queue::{Owner, Queue},
    slot::{User, Wanted, over},
};

/// Receives the commands of one device; see [`Commands::receiver`](super::Commands::receiver).
pub struct Receiver {
    user: User,
}

impl Receiver {
    pub(super) fn new(user: User) -> Self {
        Self { user }
    }

    /// Locks up to `limit` waiting commands, in order of their numbers, and adds them to `out`; waits when there are
    /// none. With a limit of zero it returns at once. One waiter at a time.
    ///
    /// # Errors
    /// `NotFound` when the device was deleted; `JournalIo`; `Closed` when the hub stops.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<()>> {
        ready!(self.user.poll_loaded(cx))?;
        let (owner, known) = (self.user.owner, out.len());
        let outcome = self.user.with(|queue, now, wanted| {
            deliver(queue, now, Some(owner), limit, out)?;
            if out.len() == known && limit > 0 {
                wanted.waiter = Some((owner, cx.waker().clone()));
            }
            Ok(())
        });
        match outcome {
            Some(Ok(())) if out.len() == known && limit > 0 => Poll::Pending,
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Ready(Err(self.user.fault())),
        }
    }

    /// [`Receiver::poll_next`] as a future. Cancelling loses nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<Delivery>) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_next(cx, limit, out)).await
    }

    /// Settles a command this receiver has locked. It is decided when this returns; the future resolves when it is
    /// durable. Dropping the future does not undo it.
    ///
    /// # Errors
    /// As [`Commands::settle`](super::Commands::settle).
    pub fn settle(
        &mut self,
        lock: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        settle(&self.user, lock, settlement)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("device", &self.user.slot.device).finish_non_exhaustive()
    }
}

/// Locks up to `limit` commands and adds them to `out`.
pub(super) fn deliver(
    queue: &mut Queue<Message>,
    now: Now,
    owner: Option<Owner>,
    limit: usize,
    out: &mut Vec<Delivery>,
) -> Result<()> {
    for _ in 0..limit {
        if !queue.has_ready(now) {
            break;
        }
        let lock = LockToken::generate()?;
        let Some((sequence, held)) = queue.deliver(now, owner, lock) else { break };
        let Some(message) = held.message else { break };
        out.push(Delivery {
            lock,
            sequence,
            enqueued_at: held.enqueued_at,
            delivery_count: held.delivery_count,
            message,
        });
    }
    Ok(())
}

/// Decides at once; the future waits for the disk.
pub(super) fn settle(
    user: &User,
    lock: LockToken,
    settlement: Settlement,
) -> impl Future<Output = Result<()>> + Send + use<> {
    let decided = user.with(|queue, now, wanted: &mut Wanted| {
        let step = queue.settle(now, lock, settlement)?;
        let (reply, answer) = oneshot::channel();
        wanted.answered.push((step, reply));
        Some(answer)
    });
    let decided = match decided {
        Some(Some(answer)) => Ok(answer),
        Some(None) => Err(lost(&user.slot.device)),
        None => Err(user.fault()),
    };
    async move {
        match decided?.await {
            Ok(outcome) => outcome,
            Err(_) => Err(closed("commands.settle")),
        }
    }
}

pub(super) fn lost(device: &str) -> Error {
    over(ErrorKind::LockLost, device)
}

pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the hub is stopping")
}
