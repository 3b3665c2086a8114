//! Pushes the commands of one device to it, as fast as it acknowledges and reads.

use std::{
    num::NonZeroU16,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use futures_util::FutureExt;
use whimbrel::{ErrorKind, Result, transport::Settlement};

use super::{
    command::{Form, Publication},
    connection::UNSENT_BYTES,
    metrics::Metrics,
    session::{Session, Window},
};
use crate::{
    commands::{Commands, Delivery, LockToken, Receiver},
    sessions::Assurance,
};

/// What a connection has that subscribed to commands. Dropping it returns to the queue what is locked.
pub(crate) struct Push {
    receiver: Receiver,
    window: Window<LockToken>,
    /// `None` after the client has unsubscribed: nothing more is sent, but what was sent may still be acknowledged.
    form: Option<Form>,
    /// Commands that are completed as soon as their bytes have left.
    leaving: Vec<LockToken>,
    device: Arc<str>,
    /// Largest packet the client accepts.
    accepts: usize,
}

impl Push {
    pub(crate) fn new(commands: &Commands, session: &Session, form: Form) -> Self {
        let sender = session.sender();
        Self {
            receiver: commands.receiver(sender),
            window: Window::new(session.command_window()),
            form: Some(form),
            leaving: Vec::new(),
            device: Arc::clone(&sender.device),
            accepts: session.accepts(),
        }
    }

    /// The client wants its commands in another form, or with `None` no more of them. `false` when nothing is left to be
    /// done.
    pub(crate) fn change(&mut self, form: Option<Form>) -> bool {
        self.form = form;
        self.is_needed()
    }

    fn is_needed(&self) -> bool {
        self.form.is_some() || !self.window.is_empty() || !self.leaving.is_empty()
    }

    /// Writes commands for as long as there are some, the window has places, and not too much waits to be sent already.
    /// Ready when it is the last that keeps it from writing more.
    ///
    /// # Errors
    /// As [`Receiver::poll_next`].
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut BytesMut,
        metrics: &Metrics,
    ) -> Poll<Result<()>> {
        // Not kept: an idle connection holds no buffers.
        let mut taken = Vec::new();
        while let Some(form) = self.form {
            if form.assurance == Assurance::AtLeastOnce && self.window.is_full() {
                // An acknowledgement makes a place, and wakes the connection as all packets do.
                break;
            }
            if outgoing.len() >= UNSENT_BYTES {
                return Poll::Ready(Ok(()));
            }
            // One at a time: how large the next one is nobody knows, and what is taken is locked.
            ready!(self.receiver.poll_next(cx, 1, &mut taken))?;
            while let Some(delivery) = taken.pop() {
                self.publish(form, &delivery, outgoing, metrics);
            }
        }
        Poll::Pending
    }

    fn publish(&mut self, form: Form, delivery: &Delivery, outgoing: &mut BytesMut, metrics: &Metrics) {
        let Some(publication) = Publication::new(form, &self.device, delivery, self.accepts) else {
            // Kept, it would come again and again, and hold its place in the queue until it expires.
            tracing::warn!(
                device = %self.device,
                sequence = delivery.sequence,
                accepts = self.accepts,
                "a command is rejected: it fits into no packet that the client accepts"
            );
            self.settle(delivery.lock, Settlement::Reject, metrics);
            return;
        };
        let id = match form.assurance {
            Assurance::AtLeastOnce => Some(self.window.enter(delivery.lock)),
            Assurance::AtMostOnce => {
                self.leaving.push(delivery.lock);
                None
            }
        };
        publication.write(id, outgoing);
        metrics.commands_sent.add(1);
    }

    /// Everything that was written has left. `false` when nothing is left to be done.
    pub(crate) fn sent(&mut self, metrics: &Metrics) -> bool {
        for lock in std::mem::take(&mut self.leaving) {
            self.settle(lock, Settlement::Complete, metrics);
        }
        self.is_needed()
    }

    /// The client has acknowledged what was published under `id`; if there was nothing, or its lock is over, nothing
    /// happens. `false` when nothing is left to be done.
    pub(crate) fn acknowledged(&mut self, id: NonZeroU16, settlement: Settlement, metrics: &Metrics) -> bool {
        if let Some(lock) = self.window.leave(id) {
            self.settle(lock, settlement, metrics);
        }
        self.is_needed()
    }

    /// MQTT has no answer to an acknowledgement, so nobody waits until it is durable. Should it get lost with the hub,
    /// the command comes again.
    fn settle(&mut self, lock: LockToken, settlement: Settlement, metrics: &Metrics) {
        match self.receiver.settle(lock, settlement).now_or_never() {
            None | Some(Ok(())) => metrics.count_settled(settlement),
            Some(Err(error)) if error.kind() == ErrorKind::LockLost => {
                tracing::debug!(device = %self.device, "an acknowledgement came too late");
            }
            Some(Err(error)) => {
                tracing::warn!(device = %self.device, %error, "a command could not be settled")
            }
        }
    }
}
