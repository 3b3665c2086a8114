//! Decides what is sent when: window, order, retry, backoff, token renewal, throttling. A plain state machine fed with
//! inputs and a clock; no `async`, no sockets, no `Instant::now()`.
//!
//! It works with sequence numbers, never with messages. The caller feeds [`Input`]s, carries out the [`Effect`]s, asks
//! [`Delivery::next_send`] what may go out while the connection has room, and feeds [`Input::Tick`] at
//! [`Delivery::wake_at`].
//!
//! Order within a lane is kept by one rule: a lane is sent from its first unsettled message on, and a new connection
//! starts there again. Nothing is ever sent twice on one connection, so nothing can be overtaken by its own
//! successors. Why a refusal that can be retried ends the connection: `docs/adr/0008-retryable-refusals.md`.

mod backoff;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

pub use backoff::{Backoff, Jitter};

use crate::{ErrorKind, Lane, Outcome, outbox::Sequence};

/// Most messages asked for at once: bounds what is in memory between the outbox and the connection.
const SEND_LIMIT: usize = 256;

/// How long a connection that is to be renewed may wait for the acknowledgements it still owes.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// While connected the clocks are looked at so often, or twice in the keep-alive time. A machine that slept is found out as
/// soon after waking.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Shortest keep-alive time a hub can be told of.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Why a connection is given up that may have ended while nobody was there to notice.
const STOOD_STILL: &str = "this process, or its machine, stood still for longer than the keep-alive time";

/// Habits of a [`Delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Most messages sent and not acknowledged. Default 1,000; the server's Receive Maximum bounds it further.
    pub window: usize,
    /// Waiting times between connection attempts. Default 100 ms to 60 s.
    pub backoff: Backoff,
    /// How long the hub goes without hearing of us, at least, before it ends the connection. Default 60 s.
    pub keep_alive: Duration,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { window: 1_000, backoff: Backoff::default(), keep_alive: Duration::from_secs(60) }
    }
}

/// What the link to the hub is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Not connected; the next try is scheduled. Carries why the last one ended, for people.
    Disconnected {
        /// Why.
        reason: Option<String>,
    },
    /// Trying.
    Connecting,
    /// Connected.
    Connected,
    /// The hub refused our credentials; tries go on slowly.
    Unauthorized {
        /// What the hub said.
        reason: String,
    },
    /// Suspended by the program: nothing is tried until it resumes.
    Suspended,
    /// Closed by the program.
    Closed,
}

/// What the hub said about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable at the hub, which told where, if it did.
    Stored {
        /// Partition of the event log.
        partition: Option<u32>,
        /// Sequence number in the partition.
        sequence: Option<u64>,
    },
    /// It was not taken.
    Refused {
        /// Whether the same message may be taken later.
        retryable: bool,
        /// What the hub said, for people.
        reason: String,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a> {
    /// Deliver from now on.
    Open,
    /// The connection asked for is up.
    Connected {
        /// Most unacknowledged messages the server takes.
        receive_maximum: u16,
        /// When the credentials of this connection have to be renewed, where they can be.
        renew_at: Option<Instant>,
    },
    /// The connection asked for could not be made, or the one that was up has ended.
    Lost {
        /// `Unauthorized`, `Throttled`, `Conflict` (another client took the identity over), or anything else.
        kind: ErrorKind,
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
        /// For people.
        reason: String,
    },
    /// The outbox has something new to read.
    Readable,
    /// What [`Delivery::next_send`] asked for was read and handed to the connection.
    Sent {
        /// The lane.
        lane: Lane,
        /// What was handed over, in order; empty when there was nothing.
        sequences: &'a [Sequence],
        /// Where to read on.
        next: Sequence,
    },
    /// The hub answered.
    Answered {
        /// The lane of the message.
        lane: Lane,
        /// Its number in the lane.
        sequence: Sequence,
        /// What the hub said.
        verdict: Verdict,
    },
    /// Time has passed.
    Tick,
    /// What the clock on the wall says; to be told with every wake-up. The monotonic clock stands still while a machine
    /// sleeps and goes on while a process is stopped: the one that says more is right.
    Looked {
        /// The time of day.
        wall: SystemTime,
    },
    /// Stop for good. That all is over is for the caller to say, who has the outbox still to close.
    Close,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a connection, with fresh credentials; answer with [`Input::Connected`] or [`Input::Lost`].
    Connect,
    /// End the connection in good order. No answer is expected, and later answers of it are ignored.
    Disconnect,
    /// Every message sent and not settled waits again.
    Unsend,
    /// A message ended.
    Settle {
        /// Its lane.
        lane: Lane,
        /// Its number in the lane.
        sequence: Sequence,
        /// How.
        outcome: Outcome,
    },
    /// The link does something else now.
    State(ConnectionState),
}

/// What may be sent now: read it from the outbox, hand it to the connection, report [`Input::Sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextSend {
    /// The lane.
    pub lane: Lane,
    /// Where to read from; none is the lane's first unsettled message.
    pub from: Option<Sequence>,
    /// Most messages.
    pub limit: usize,
}

/// The state machine. One per device.
#[derive(Debug)]
pub struct Delivery {
    options: DeliveryOptions,
    jitter: Jitter,
    link: Link,
    lanes: [LaneState; 2],
    /// Failures since the last connection that was any good.
    failures: u32,
    /// The hub refused our credentials and has not taken them since.
    unauthorized: bool,
    /// Both clocks at the last look.
    looked: Option<(Instant, SystemTime)>,
}

#[derive(Debug)]
enum Link {
    Idle,
    Waiting { until: Instant },
    Connecting,
    Up { since: Instant, window: usize, renew_at: Option<Instant> },
    Draining { until: Instant, then: Then },
    Closed,
}

/// What follows when everything sent has been answered.
#[derive(Debug)]
enum Then {
    Renew,
    Retry { retry_after: Option<Duration>, reason: String },
}

#[derive(Debug, Default)]
struct LaneState {
    /// Where to read on; none is the first unsettled message.
    next: Option<Sequence>,
    /// Sent on this connection and not answered, in order.
    in_flight: VecDeque<Sequence>,
    /// Nothing was there at the last look.
    dry: bool,
}

impl Delivery {
    /// A machine at rest; feed [`Input::Open`]. Two machines with the same seed decide alike.
    pub fn new(options: DeliveryOptions, seed: u64) -> Self {
        Self {
            options,
            jitter: Jitter::new(seed),
            link: Link::Idle,
            lanes: Default::default(),
            failures: 0,
            unauthorized: false,
            looked: None,
        }
    }

    /// Takes one input at the time `now`; appends what is to be done to `effects`, in order.
    pub fn on(&mut self, now: Instant, input: Input<'_>, effects: &mut Vec<Effect>) {
        match input {
            Input::Open => self.connect(effects),
            Input::Connected { receive_maximum, renew_at } => {
                self.connected(now, receive_maximum, renew_at, effects);
            }
            Input::Lost { kind, retry_after, reason } => self.lost(now, kind, retry_after, reason, effects),
            Input::Readable => self.lanes.iter_mut().for_each(|lane| lane.dry = false),
            Input::Sent { lane, sequences, next } => self.lane(lane).sent(sequences, next),
            Input::Answered { lane, sequence, verdict } => {
                self.answered(now, lane, sequence, verdict, effects)
            }
            Input::Tick => self.tick(now, effects),
            Input::Looked { wall } => self.looked(now, wall, effects),
            Input::Close => self.close(effects),
        }
    }

    /// What may be sent now: alerts before telemetry, as far as the window has room. Nothing when every lane that has
    /// room was found empty.
    pub fn next_send(&self) -> Option<NextSend> {
        let Link::Up { window, .. } = self.link else { return None };
        let room = window.saturating_sub(self.in_flight());
        let next = self.next_read()?;
        (room > 0).then(|| NextSend { limit: next.limit.min(room), ..next })
    }

    /// What will be sent next, whether or not there is room for it now: worth reading ahead.
    pub fn next_read(&self) -> Option<NextSend> {
        let Link::Up { .. } = self.link else { return None };
        let [alerts, telemetry] = &self.lanes;
        let (lane, state) = if alerts.dry { (Lane::Telemetry, telemetry) } else { (Lane::Alert, alerts) };
        (!state.dry).then_some(NextSend { lane, from: state.next, limit: SEND_LIMIT })
    }

    /// When to feed [`Input::Tick`]; none when only another input can change anything.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.link {
            Link::Waiting { until } | Link::Draining { until, .. } => Some(*until),
            Link::Up { renew_at, .. } => renew_at.iter().copied().chain(self.look_at()).min(),
            Link::Idle | Link::Connecting | Link::Closed => None,
        }
    }

    /// Messages sent and not answered.
    pub fn in_flight(&self) -> usize {
        self.lanes.iter().map(|lane| lane.in_flight.len()).sum()
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        let [alerts, telemetry] = &mut self.lanes;
        match lane {
            Lane::Alert => alerts,
            Lane::Telemetry => telemetry,
        }
    }

    fn connect(&mut self, effects: &mut Vec<Effect>) {
        self.link = Link::Connecting;
        // Somebody who watches wants to see that the credentials are wrong, not a flicker at each slow try.
        if !self.unauthorized {
            effects.push(Effect::State(ConnectionState::Connecting));
        }
        effects.push(Effect::Connect);
    }

    fn connected(
        &mut self,
        now: Instant,
        receive_maximum: u16,
        renew_at: Option<Instant>,
        effects: &mut Vec<Effect>,
    ) {
        if !matches!(self.link, Link::Connecting) {
            return;
        }
        self.unauthorized = false;
        self.link = Link::Up {
            since: now,
            window: self.options.window.min(usize::from(receive_maximum)).max(1),
            renew_at,
        };
        effects.push(Effect::State(ConnectionState::Connected));
    }

    fn lost(
        &mut self,
        now: Instant,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        match self.link {
            Link::Idle | Link::Waiting { .. } | Link::Closed => return,
            Link::Up { since, .. } if now.duration_since(since) >= self.options.backoff.max => {
                self.failures = 0
            }
            Link::Up { .. } | Link::Connecting | Link::Draining { .. } => {}
        }
        self.unsend(effects);
        self.unauthorized = kind == ErrorKind::Unauthorized;
        let wait = match kind {
            // The same answer awaits the next try, too; and two clients that take one identity from each other would
            // do nothing else.
            ErrorKind::Unauthorized | ErrorKind::Conflict => self.options.backoff.slow(&mut self.jitter),
            ErrorKind::Throttled => {
                self.options.backoff.throttled(self.failures, retry_after, &mut self.jitter)
            }
            _ => self.options.backoff.after(self.failures, &mut self.jitter),
        };
        self.wait(
            now + wait,
            effects,
            if self.unauthorized {
                ConnectionState::Unauthorized { reason }
            } else {
                ConnectionState::Disconnected { reason: Some(reason) }
            },
        );
    }

    fn wait(&mut self, until: Instant, effects: &mut Vec<Effect>, state: ConnectionState) {
        self.failures = self.failures.saturating_add(1);
        self.link = Link::Waiting { until };
        effects.push(Effect::State(state));
    }

    fn unsend(&mut self, effects: &mut Vec<Effect>) {
        if self.lanes.iter().any(|lane| lane.next.is_some()) {
            effects.push(Effect::Unsend);
        }
        self.lanes = Default::default();
    }

    fn answered(
        &mut self,
        now: Instant,
        lane: Lane,
        sequence: Sequence,
        verdict: Verdict,
        effects: &mut Vec<Effect>,
    ) {
        if !matches!(self.link, Link::Up { .. } | Link::Draining { .. }) {
            return;
        }
        match verdict {
            Verdict::Stored { partition, sequence: place } => {
                if self.lane(lane).answered(sequence) {
                    self.failures = 0;
                    let outcome = Outcome::Delivered { partition, sequence: place };
                    effects.push(Effect::Settle { lane, sequence, outcome });
                }
            }
            Verdict::Refused { retryable: false, reason } => {
                if self.lane(lane).answered(sequence) {
                    effects.push(Effect::Settle { lane, sequence, outcome: Outcome::Rejected { reason } });
                }
            }
            Verdict::Refused { retryable: true, reason } => {
                // It stays unsettled, and the next connection begins with it.
                self.lane(lane).answered(sequence);
                if matches!(self.link, Link::Up { .. }) {
                    let then = Then::Retry { retry_after: None, reason };
                    self.link = Link::Draining { until: now + DRAIN_LIMIT, then };
                }
            }
        }
        self.finish_draining(now, effects);
    }

    /// When everything sent has been answered, or has had its time, the connection ends.
    fn finish_draining(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Link::Draining { until, .. } = &self.link else { return };
        if self.in_flight() > 0 && now < *until {
            return;
        }
        let Link::Draining { then, .. } = std::mem::replace(&mut self.link, Link::Idle) else { return };
        effects.push(Effect::Disconnect);
        self.unsend(effects);
        match then {
            Then::Renew => self.connect(effects),
            Then::Retry { retry_after, reason } => {
                let wait = self.options.backoff.throttled(self.failures, retry_after, &mut self.jitter);
                self.wait(now + wait, effects, ConnectionState::Disconnected { reason: Some(reason) });
            }
        }
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Waiting { until } if until <= now => self.connect(effects),
            Link::Up { renew_at: Some(at), .. } if at <= now => {
                self.link = Link::Draining { until: now + DRAIN_LIMIT, then: Then::Renew };
                self.finish_draining(now, effects);
            }
            Link::Draining { .. } => self.finish_draining(now, effects),
            _ => {}
        }
    }

    /// When the clocks are to be looked at again, if anybody does.
    fn look_at(&self) -> Option<Instant> {
        let (looked, _) = self.looked?;
        Some(looked + (self.patience() / 2).min(LOOK_INTERVAL))
    }

    fn patience(&self) -> Duration {
        self.options.keep_alive.max(SHORTEST_KEEP_ALIVE)
    }

    /// Gives up a connection that the hub may have ended long ago: that we hear nothing of it proves nothing, when nobody
    /// was there to ask.
    fn looked(&mut self, now: Instant, wall: SystemTime, effects: &mut Vec<Effect>) {
        let Some((before, wall_before)) = self.looked.replace((now, wall)) else { return };
        let by_the_wall = wall.duration_since(wall_before).unwrap_or_default();
        let away = now.saturating_duration_since(before).max(by_the_wall);
        if away > self.patience()
            && matches!(self.link, Link::Connecting | Link::Up { .. } | Link::Draining { .. })
        {
            // Told first: saying goodbye can take a while.
            self.lost(now, ErrorKind::Unreachable, None, STOOD_STILL.to_owned(), effects);
            effects.push(Effect::Disconnect);
        }
    }

    fn close(&mut self, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Closed => return,
            Link::Connecting | Link::Up { .. } | Link::Draining { .. } => effects.push(Effect::Disconnect),
            Link::Idle | Link::Waiting { .. } => {}
        }
        self.unsend(effects);
    }
}

impl LaneState {
    fn sent(&mut self, sequences: &[Sequence], next: Sequence) {
        self.dry = sequences.is_empty() && self.next == Some(next);
        self.next = Some(next);
        self.in_flight.extend(sequences);
    }

    /// Takes a message off the wire; false when it was not on it.
    fn answered(&mut self, sequence: Sequence) -> bool {
        if self.in_flight.front() == Some(&sequence) {
            self.in_flight.pop_front();
            return true;
        }
        match self.in_flight.binary_search(&sequence) {
            Ok(place) => self.in_flight.remove(place).is_some(),
            Err(_) => false,
        }
    }
}
