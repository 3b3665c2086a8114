//! The one task of a client: feeds the state machine, carries out what it decides, drives the connection.

use std::{
    future::{Future, pending},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use super::{blocking, life::Phase, read_ahead::ReadAhead};
use crate::{
    Error, Lane, Outcome, Result,
    delivery::{ConnectionState, Delivery, DeliveryOptions, Effect, Input, NextSend},
    inbox,
    outbox::{Outbox, Queued, Sequence},
    transport::{Answer, Connection, Greeting, Handle, Incoming, Offer, Settlement, Transport},
};

/// What the options say about the task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) delivery: DeliveryOptions,
    pub(super) inbox_window: u16,
    pub(super) close_deadline: Duration,
}

pub(super) struct Task<T: Transport> {
    outbox: Outbox,
    inbox: Receiving,
    transport: Arc<T>,
    delivery: Delivery,
    link: Link<T::Connection>,
    /// What is read from the disk for the connection that is up.
    ahead: ReadAhead,
    offer: Offer,
    state: watch::Sender<ConnectionState>,
    phases: watch::Receiver<Phase>,
    close_deadline: Duration,
    /// When flushing gives up; set once the task is to end.
    stop_at: Option<Instant>,
    /// When the goodbye gives up, where it has less time than it may take.
    end_at: Option<Instant>,
    /// When the outbox wants to look for expired messages again.
    expire_at: Option<Instant>,
    batch: Batch,
}

/// Buffers that are used again and again.
#[derive(Default)]
struct Batch {
    incoming: Incoming,
    effects: Vec<Effect>,
    settled: Vec<(Lane, Sequence, Outcome)>,
    queued: Vec<Queued>,
    sequences: Vec<Sequence>,
    sent: Vec<(Lane, Sequence)>,
    settlements: Vec<(Handle, Settlement)>,
}

enum Link<C> {
    Down,
    Connecting(Attempt<C>),
    Up(C),
}

/// A connection in the making.
type Attempt<C> = Pin<Box<dyn Future<Output = Result<(C, Greeting)>> + Send>>;

/// What woke the task.
enum Event<C> {
    Connected(C, Greeting),
    Incoming,
    Commands,
    Lost(Error),
    Read(Result<()>),
    Readable,
    Time,
    Phase,
    Empty,
}

impl<C: Connection> Link<C> {
    /// Waits for the next thing to happen on the link. Cancelling loses nothing.
    async fn next(&mut self, incoming: &mut Incoming) -> Event<C> {
        match self {
            Self::Down => pending().await,
            Self::Connecting(attempt) => match attempt.await {
                Ok((connection, greeting)) => Event::Connected(connection, greeting),
                Err(error) => Event::Lost(error),
            },
            Self::Up(connection) => match connection.drive(incoming).await {
                Ok(()) => Event::Incoming,
                Err(error) => Event::Lost(error),
            },
        }
    }
}

impl<T: Transport> Task<T> {
    pub(super) fn new(
        outbox: Outbox,
        inbox: Arc<inbox::Shared>,
        transport: T,
        habits: Habits,
        seed: u64,
        state: watch::Sender<ConnectionState>,
        mut phases: watch::Receiver<Phase>,
    ) -> Self {
        // The client may have been told to close before there was a task.
        phases.mark_changed();
        Self {
            offer: Offer {
                outbox_id: outbox.id().to_owned(),
                window: habits.delivery.window,
                inbox_window: habits.inbox_window,
            },
            outbox,
            inbox: Receiving(inbox),
            transport: Arc::new(transport),
            delivery: Delivery::new(habits.delivery, seed),
            link: Link::Down,
            ahead: ReadAhead::default(),
            state,
            phases,
            close_deadline: habits.close_deadline,
            stop_at: None,
            end_at: None,
            expire_at: None,
            batch: Batch::default(),
        }
    }

    /// Runs until the client is suspended or closed, and lets go of everything.
    pub(super) async fn run(mut self) -> (watch::Sender<ConnectionState>, Result<()>) {
        if let Err(error) = self.deliver().await {
            // Without its outbox nothing can be delivered in order, or settled. `send` fails with the same error.
            tracing::error!(%error, "the outbox failed; delivery stops until the client is opened again");
            self.leave();
            self.inbox.fail(&error);
            self.outbox.mark_unsent();
            self.state.send_replace(ConnectionState::Disconnected { reason: Some(error.to_string()) });
            let ends = |phase: &Phase| matches!(phase, Phase::Suspending(_) | Phase::Closing);
            let _ = self.phases.wait_for(ends).await;
        }
        let (outbox, inbox) = (self.outbox.clone(), self.inbox.0.clone());
        let closing = *self.phases.borrow() == Phase::Closing;
        let result = blocking("device.close", move || {
            let (outbox, inbox) =
                if closing { (outbox.close(), inbox.close()) } else { (outbox.suspend(), inbox.suspend()) };
            outbox.and(inbox)
        })
        .await;
        (self.state, result)
    }

    /// Delivers until closing has had its time. Fails only with the outbox.
    async fn deliver(&mut self) -> Result<()> {
        self.look().await?;
        self.feed(Input::Open).await?;
        self.expire().await?;
        loop {
            self.send()?;
            let event = self.event().await;
            // What came in is taken in before the connection it came on is doubted.
            if !matches!(event, Event::Incoming) {
                self.look().await?;
            }
            match event {
                // Given up meanwhile.
                Event::Connected(..) if !matches!(self.link, Link::Connecting(_)) => {}
                Event::Connected(connection, greeting) => {
                    self.link = Link::Up(connection);
                    let Greeting { receive_maximum, renew_in, commands } = greeting;
                    self.inbox.connected(now(), commands);
                    let renew_at = renew_in.map(|wait| now() + wait);
                    self.feed(Input::Connected { receive_maximum, renew_at }).await?;
                }
                Event::Incoming => {
                    self.take_commands();
                    self.answers().await?;
                    self.look().await?;
                }
                Event::Commands => self.settle_commands(),
                Event::Lost(error) => {
                    self.leave();
                    let (kind, retry_after) = (error.kind(), error.wait_hint());
                    self.feed(Input::Lost { kind, retry_after, reason: error.to_string() }).await?;
                }
                Event::Read(result) => result?,
                Event::Readable => {
                    self.expire().await?;
                    self.feed(Input::Readable).await?;
                }
                Event::Time => {
                    self.expire().await?;
                    self.feed(Input::Tick).await?;
                    if self.stop_at.is_some_and(|at| at <= now()) {
                        return self.feed(Input::Close).await;
                    }
                }
                Event::Phase => self.turn(),
                Event::Empty => return self.feed(Input::Close).await,
            }
        }
    }

    /// Waits for whatever comes first.
    async fn event(&mut self) -> Event<T::Connection> {
        let wake_at = [self.delivery.wake_at(), self.expire_at, self.stop_at].into_iter().flatten().min();
        let stopping = self.stop_at.is_some();
        tokio::select! {
            event = self.link.next(&mut self.batch.incoming) => event,
            result = self.ahead.finished() => Event::Read(result),
            () = self.outbox.readable() => Event::Readable,
            () = self.inbox.work() => Event::Commands,
            () = until(wake_at) => Event::Time,
            Ok(()) = self.phases.changed() => Event::Phase,
            () = self.outbox.empty(), if stopping && !self.inbox.is_settling() => Event::Empty,
        }
    }

    /// The client is to go elsewhere.
    fn turn(&mut self) {
        match *self.phases.borrow_and_update() {
            Phase::Suspending(budget) => {
                self.stop_at = Some(budget.flush.into_std());
                self.end_at = Some(budget.end.into_std());
            }
            Phase::Closing => {
                self.inbox.close_intake();
                self.stop_at = Some(now() + self.close_deadline);
                self.end_at = None;
            }
            Phase::Open | Phase::Suspended | Phase::Resuming { .. } | Phase::Closed => {}
        }
    }

    /// Gives the state machine one input and does what it says.
    async fn feed(&mut self, input: Input<'_>) -> Result<()> {
        self.delivery.on(now(), input, &mut self.batch.effects);
        self.carry_out().await
    }

    /// Has the state machine see whether time was lost.
    async fn look(&mut self) -> Result<()> {
        self.feed(Input::Looked { wall: SystemTime::now() }).await
    }

    /// Gives the state machine all answers that came in.
    async fn answers(&mut self) -> Result<()> {
        let now = now();
        for Answer { lane, sequence, verdict } in self.batch.incoming.answers.drain(..) {
            self.delivery.on(now, Input::Answered { lane, sequence, verdict }, &mut self.batch.effects);
        }
        self.carry_out().await
    }

    /// Gives the inbox what came in for it.
    fn take_commands(&mut self) {
        let Incoming { answers: _, commands, settled, refused } = &mut self.batch.incoming;
        if !commands.is_empty() {
            self.inbox.arrived(now(), commands);
        }
        if !settled.is_empty() {
            self.inbox.settled(now(), settled);
        }
        if let Some(error) = refused.take() {
            self.inbox.refused(&error);
        }
    }

    /// Tells the connection what the inbox has for it.
    fn settle_commands(&mut self) {
        let settlements = &mut self.batch.settlements;
        let subscribe = self.inbox.take_work(settlements);
        if let Link::Up(connection) = &mut self.link {
            if subscribe {
                connection.receive_commands(self.offer.inbox_window);
            }
            if !settlements.is_empty() {
                connection.settle(settlements);
            }
        }
        settlements.clear();
    }

    async fn carry_out(&mut self) -> Result<()> {
        let mut effects = std::mem::take(&mut self.batch.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Settle { lane, sequence, outcome } => {
                    self.batch.settled.push((lane, sequence, outcome))
                }
                Effect::Connect => {
                    let (transport, offer) = (self.transport.clone(), self.offer.clone());
                    self.link = Link::Connecting(Box::pin(async move { transport.connect(offer).await }));
                }
                Effect::Disconnect => {
                    self.settle_commands();
                    if let Link::Up(connection) = self.leave() {
                        match self.end_at {
                            // Also when there is no time left, what can be said at once is said.
                            Some(at) => drop(tokio::time::timeout_at(at.into(), connection.finish()).await),
                            None => connection.finish().await,
                        }
                    }
                }
                Effect::Unsend => self.outbox.mark_unsent(),
                Effect::State(state) => drop(self.state.send_replace(state)),
            }
        }
        self.batch.effects = effects;
        if self.batch.settled.is_empty() {
            return Ok(());
        }
        self.outbox.settle(std::mem::take(&mut self.batch.settled))
    }

    /// Hands over what the window and the connection have room for, and has the disk read what comes after it.
    fn send(&mut self) -> Result<()> {
        while let Link::Up(connection) = &self.link
            && connection.has_room()
            && let Some(NextSend { lane, from, limit }) = self.delivery.next_send()
        {
            let from = from.unwrap_or_else(|| self.outbox.head(lane));
            let queued = &mut self.batch.queued;
            queued.clear();
            let next = match self.ahead.take(lane, from, limit, queued) {
                Some(next) => next,
                None if self.ahead.is_reading(lane, from) => return Ok(()),
                None if self.outbox.is_at_hand(lane, from) => self.outbox.read(lane, from, limit, queued)?,
                None => {
                    self.ahead.start(&self.outbox, lane, from, limit);
                    return Ok(());
                }
            };
            self.hand_over(lane, next);
        }
        if self.ahead.is_empty()
            && let Some(NextSend { lane, from, limit }) = self.delivery.next_read()
        {
            let from = from.unwrap_or_else(|| self.outbox.head(lane));
            if !self.outbox.is_at_hand(lane, from) {
                self.ahead.start(&self.outbox, lane, from, limit);
            }
        }
        Ok(())
    }

    /// Gives the connection what was read.
    fn hand_over(&mut self, lane: Lane, next: Sequence) {
        let Link::Up(connection) = &mut self.link else { return };
        let Batch { queued, sequences, sent, effects, .. } = &mut self.batch;
        connection.publish(queued);
        sequences.clear();
        sequences.extend(queued.iter().map(|queued| queued.sequence));
        sent.clear();
        sent.extend(sequences.iter().map(|sequence| (lane, *sequence)));
        queued.clear();
        self.outbox.mark_sent(sent);
        self.delivery.on(now(), Input::Sent { lane, sequences, next }, effects);
    }

    /// Lets go of the link and of what was read for it.
    fn leave(&mut self) -> Link<T::Connection> {
        self.ahead.clear();
        self.inbox.lost();
        std::mem::replace(&mut self.link, Link::Down)
    }

    /// Ends what has had its time.
    async fn expire(&mut self) -> Result<()> {
        let next = if matches!(self.link, Link::Up(_)) {
            self.outbox.expire()?
        } else {
            // While the link is down this reads from the disk.
            let outbox = self.outbox.clone();
            blocking("device.expire", move || outbox.expire()).await?
        };
        self.expire_at = next.map(tokio::time::Instant::into_std);
        Ok(())
    }
}

/// The task's hold on the inbox: when the task goes, with its runtime perhaps, nobody waits for it any more.
struct Receiving(Arc<inbox::Shared>);

impl Deref for Receiving {
    type Target = inbox::Shared;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.abandoned();
    }
}

/// The runtime's clock, which tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => pending().await,
    }
}
