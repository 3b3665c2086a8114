//! Links in the hands of those who serve them: [`Incoming`] where the peer sends, [`Outgoing`] where the hub does.
//!
//! A connection's state is shared by the task that reads and writes the socket and the tasks of its links. What a link
//! sends is written at once into the connection's buffer; the socket's task is woken to pass it on. One task serves one
//! link: the task that polled last is the one that is woken.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use fe2o3_amqp_types::{definitions::Error, messaging::DeliveryState, performatives::Attach};
use futures_util::task::AtomicWaker;

use super::engine::{Delivery, Disposition, Ended, Engine, LinkId, Terms};

/// What the tasks of a connection share.
#[derive(Debug)]
pub(super) struct Shared {
    engine: Mutex<Engine>,
    /// Of the task with the socket.
    socket: AtomicWaker,
}

impl Shared {
    pub(super) fn new(engine: Engine) -> Arc<Self> {
        Arc::new(Self { engine: Mutex::new(engine), socket: AtomicWaker::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the task with the socket: wakes it when there is something to send, or room to read again.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.socket.register(cx.waker());
    }

    /// Does something, and has the socket's task look after it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        let outcome = act(&mut self.lock());
        self.socket.wake();
        outcome
    }

    /// Detaches a link from outside the task that serves it.
    pub(super) fn detach(&self, id: LinkId, error: Error) {
        self.with(|engine| engine.detach(id, Some(error)));
    }
}

/// A link the peer has attached and nobody has decided on. Dropped undecided it is detached.
#[derive(Debug)]
pub(super) struct Attaching {
    held: Held,
    attach: Box<Attach>,
}

impl Attaching {
    pub(super) fn new(shared: Arc<Shared>, id: LinkId, attach: Box<Attach>) -> Self {
        Self { held: Held { shared, id }, attach }
    }

    pub(super) fn id(&self) -> LinkId {
        self.held.id
    }

    /// What the peer sent: name, source with filter, target, properties, desired capabilities, settle modes.
    pub(super) fn attach(&self) -> &Attach {
        &self.attach
    }

    /// The same, to change before it is accepted: the answer repeats source and target.
    pub(super) fn attach_mut(&mut self) -> &mut Attach {
        &mut self.attach
    }

    /// Accepts a link the peer sends on. Has to be that.
    pub(super) fn accept_incoming(self, terms: &Terms) -> Incoming {
        let Self { held, attach } = self;
        held.shared.with(|engine| engine.accept(held.id, &attach, terms));
        Incoming { held }
    }

    /// Accepts a link the peer receives on. Has to be that.
    pub(super) fn accept_outgoing(self, terms: &Terms) -> Outgoing {
        let Self { held, attach } = self;
        held.shared.with(|engine| engine.accept(held.id, &attach, terms));
        Outgoing { held, attach }
    }

    /// Refuses it: the peer sees it attached and at once detached with `error`.
    pub(super) fn refuse(self, error: Error) {
        self.held.shared.with(|engine| engine.refuse(self.held.id, &self.attach, error));
    }
}

/// A link the peer sends messages on. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Incoming {
    held: Held,
}

impl Incoming {
    /// The next message.
    ///
    /// # Errors
    /// When nothing more comes.
    pub(super) async fn next(&mut self) -> Result<Delivery, Ended> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Incoming::next`], polled.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery, Ended>> {
        let polled = self.held.shared.lock().poll_arrived(self.held.id, cx.waker());
        if let Poll::Ready(Ok(_)) = polled {
            // There may be room to read again.
            self.held.shared.socket.wake();
        }
        polled
    }

    /// Answers the messages with numbers `first` to `last`, which settles them.
    pub(super) fn dispose(&self, first: u32, last: u32, state: DeliveryState) {
        self.held.with(|engine, id| engine.settle(id, first, last, Some(state)));
    }

    /// Lets the peer send `count` more messages: that many were dealt with, answered or not.
    pub(super) fn replenish(&self, count: u32) {
        self.held.with(|engine, id| engine.replenish(id, count));
    }

    /// Detaches it with an error.
    pub(super) fn detach(&self, error: Error) {
        self.held.with(|engine, id| engine.detach(id, Some(error)));
    }
}

/// A link the peer receives messages on. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Outgoing {
    held: Held,
    attach: Box<Attach>,
}

impl Outgoing {
    /// What the peer sent to attach it.
    pub(super) fn attach(&self) -> &Attach {
        &self.attach
    }

    /// How many messages may be sent now, at least one: by the peer's credit and window, and by what the socket takes.
    /// Waits until there is one.
    ///
    /// # Errors
    /// When the link is over.
    pub(super) fn poll_usable(&self, cx: &mut Context<'_>) -> Poll<Result<u32, Ended>> {
        self.held.shared.lock().poll_usable(self.held.id, cx.waker())
    }

    /// Sends an encoded message at once, and tells its number. Needs one of what [`Outgoing::poll_usable`] told. A tag is
    /// at most 32 bytes long; `format` is 0 for an ordinary message.
    ///
    /// # Errors
    /// When the link is over: nothing was sent.
    pub(super) fn send(
        &mut self,
        tag: &[u8],
        format: u32,
        settled: bool,
        payload: &[u8],
    ) -> Result<u32, Ended> {
        self.held.with(|engine, id| engine.transfer(id, tag, format, settled, payload))
    }

    /// What the peer did about a message that was not sent settled.
    ///
    /// # Errors
    /// When the link is over and everything was told.
    pub(super) fn poll_disposition(&self, cx: &mut Context<'_>) -> Poll<Result<Disposition, Ended>> {
        self.held.shared.lock().poll_disposition(self.held.id, cx.waker())
    }

    /// Settles what the peer disposed of and waits for the hub to settle (settle mode second).
    pub(super) fn settle(&self, number: u32, state: DeliveryState) {
        self.held.with(|engine, id| engine.settle(id, number, number, Some(state)));
    }

    /// Whether the peer drains the link: once there is nothing to send, call [`Outgoing::drained`]. A change of this wakes
    /// the task.
    pub(super) fn wants_drained(&self) -> bool {
        self.held.shared.lock().wants_drained(self.held.id)
    }

    /// Tells a peer that drains the link that there is nothing now.
    pub(super) fn drained(&self) {
        self.held.with(|engine, id| engine.drained(id));
    }

    /// Detaches it with an error.
    pub(super) fn detach(&self, error: Error) {
        self.held.with(|engine, id| engine.detach(id, Some(error)));
    }
}

/// Detaches the link when it is dropped.
#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    id: LinkId,
}

impl Held {
    fn with<T>(&self, act: impl FnOnce(&mut Engine, LinkId) -> T) -> T {
        self.shared.with(|engine| act(engine, self.id))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.with(Engine::release);
    }
}
