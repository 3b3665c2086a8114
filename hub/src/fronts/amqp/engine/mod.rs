//! AMQP 1.0 from the side that is connected to: connection, sessions, links, without any I/O. Bytes in, bytes out, and
//! links to be decided on.
//!
//! It is ours because the hub chooses delivery tags (they carry lock tokens), has to know the credit before it locks a
//! command, and must not settle before the disk has: no library we know lets a server do these. Performatives and
//! messages are the AMQP crates'.
//!
//! Peers begin sessions and attach links, the hub never does; so it uses the peer's channel numbers and handles for its
//! own direction too.

mod link;
mod session;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    task::{Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::{
        AmqpError, ConnectionError, Error, ErrorCondition, Handle, LinkError, ReceiverSettleMode, Role,
        SessionError,
    },
    messaging::DeliveryState,
    performatives::{
        Attach, Begin, Close, Detach, Disposition as Outcome, End, Flow, Open, Performative, Transfer,
    },
    primitives::{OrderedMap, Symbol, Value},
};
use serde::Serialize;

use self::{
    link::{Link, Partial, Standing},
    session::{Blocked, INCOMING_WINDOW, Session},
};
use super::codec::{self, Frame, FrameType, Malformed, TransferHead};

pub(super) use self::link::{Delivery, Disposition, Ended, LinkId};

/// Largest frame the hub takes, and sends where the peer takes it.
pub(super) const LARGEST_FRAME: usize = 64 * 1024;
/// With more than this waiting to be sent, links have to wait.
const UNSENT_BYTES: usize = 256 * 1024;
/// Sessions of a connection.
const CHANNEL_MAX: u16 = 1_023;
/// Links of a session.
const HANDLE_MAX: u32 = 1_023;
/// Links of a connection.
const LINKS: usize = 4_096;

/// How the hub introduces itself.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Its name.
    pub(super) container: String,
    /// Longest silence it wants.
    pub(super) idle: Duration,
}

/// Terms on which a link is accepted.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Largest message in bytes, as it is encoded.
    pub(super) largest: usize,
    /// For links the peer sends on: messages it may have under way.
    pub(super) credit: u32,
    /// What the hub offers.
    pub(super) capabilities: Vec<Symbol>,
}

/// Why a connection has to end.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    condition: ErrorCondition,
    text: &'static str,
}

impl Fault {
    fn framing(text: &'static str) -> Self {
        Self { condition: ConnectionError::FramingError.into(), text }
    }

    fn not_allowed(text: &'static str) -> Self {
        Self { condition: AmqpError::NotAllowed.into(), text }
    }

    /// For the log.
    pub(super) fn text(&self) -> &'static str {
        self.text
    }
}

impl From<Malformed> for Fault {
    fn from(Malformed: Malformed) -> Self {
        Self { condition: AmqpError::DecodeError.into(), text: "what came is not AMQP 1.0" }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Opening,
    Open,
    /// The hub has said close.
    Closing,
    /// Both have, or the connection is gone.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Engine {
    settings: Settings,
    phase: Phase,
    out: BytesMut,
    /// Largest frame the peer takes.
    largest_frame: usize,
    peer_idle: Option<Duration>,
    sessions: HashMap<u16, Session>,
    links: HashMap<LinkId, Link>,
    next_link: u64,
    /// Bytes of messages that arrived and nobody has taken.
    held: usize,
    pending: VecDeque<(LinkId, Box<Attach>)>,
    /// Links that wait for room in `out`.
    starved: Vec<LinkId>,
}

impl Engine {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Opening,
            out: BytesMut::new(),
            largest_frame: codec::SMALLEST_FRAME,
            peer_idle: None,
            sessions: HashMap::new(),
            links: HashMap::new(),
            next_link: 0,
            held: 0,
            pending: VecDeque::new(),
            starved: Vec::new(),
        }
    }

    /// What is to be sent, all of it.
    pub(super) fn take_outgoing(&mut self) -> BytesMut {
        let out = std::mem::take(&mut self.out);
        for id in std::mem::take(&mut self.starved) {
            self.wake(id);
        }
        out
    }

    /// Whether something is to be sent.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.out.is_empty()
    }

    /// The next link a peer has attached, to be accepted or refused.
    pub(super) fn next_pending(&mut self) -> Option<(LinkId, Box<Attach>)> {
        self.pending.pop_front()
    }

    /// Whether the peer has opened the connection.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether both sides have closed.
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Bytes of messages that arrived and nobody has taken yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Longest silence the peer bears.
    pub(super) fn peer_idle(&self) -> Option<Duration> {
        self.peer_idle
    }

    /// Shows the peer that the hub is there.
    pub(super) fn heartbeat(&mut self) {
        if self.phase == Phase::Open {
            codec::write_heartbeat(&mut self.out);
        }
    }

    /// Handles a frame.
    ///
    /// # Errors
    /// When the connection cannot go on; [`Engine::close`] then.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<(), Fault> {
        if frame.body.is_empty() || self.phase == Phase::Closed {
            return Ok(());
        }
        let (performative, payload) = codec::read_performative(frame.body)?;
        if self.phase == Phase::Closing {
            if matches!(performative, Performative::Close(_)) {
                self.lost();
            }
            return Ok(());
        }
        let channel = frame.channel;
        match (self.phase, performative) {
            (Phase::Opening, Performative::Open(open)) => self.on_open(&open),
            (Phase::Opening, _) | (_, Performative::Open(_)) => {
                Err(Fault::not_allowed("a connection begins with one open"))
            }
            (_, Performative::Close(_)) => {
                self.write(0, &Close { error: None }, 1);
                self.lost();
                Ok(())
            }
            (_, Performative::Begin(begin)) => self.on_begin(channel, &begin),
            (_, Performative::End(_)) => self.on_end(channel),
            (_, Performative::Attach(attach)) => self.on_attach(channel, attach),
            (_, Performative::Flow(flow)) => self.on_flow(channel, &flow),
            (_, Performative::Transfer(transfer)) => self.on_transfer(channel, transfer, &payload),
            (_, Performative::Disposition(outcome)) => self.on_disposition(channel, outcome),
            (_, Performative::Detach(detach)) => self.on_detach(channel, &detach),
        }
    }

    /// Ends the connection: all links are over, the peer is told why.
    pub(super) fn close(&mut self, error: Option<Error>) {
        if matches!(self.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        if self.phase == Phase::Opening {
            // The peer reads no close before an open.
            self.write_open();
        }
        self.write(0, &Close { error }, 1);
        self.phase = Phase::Closing;
        self.end_links();
    }

    /// [`Engine::close`] for a fault.
    pub(super) fn fail(&mut self, fault: &Fault) {
        self.close(Some(Error::new(fault.condition.clone(), fault.text.to_owned(), None)));
    }

    /// Tells every link that the hub stops.
    pub(super) fn stop(&mut self) {
        for link in self.links.values_mut() {
            link.stopping = true;
            link.wake();
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.phase = Phase::Closed;
        self.end_links();
    }

    fn end_links(&mut self) {
        self.sessions.clear();
        self.pending.clear();
        self.held = 0;
        self.links.retain(|_, link| {
            link.standing = Standing::Gone;
            link.partial = None;
            link.arrived = VecDeque::new();
            link.wake();
            link.held
        });
    }

    fn write_open(&mut self) {
        let properties = [("product", "Whimbrel"), ("version", env!("CARGO_PKG_VERSION"))];
        let open = Open {
            container_id: self.settings.container.clone(),
            hostname: None,
            max_frame_size: (LARGEST_FRAME as u32).into(),
            channel_max: CHANNEL_MAX.into(),
            idle_time_out: u32::try_from(self.settings.idle.as_millis()).ok(),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: Some(fields(properties)),
        };
        self.write(0, &open, 10);
    }

    fn on_open(&mut self, open: &Open) -> Result<(), Fault> {
        let largest = usize::try_from(open.max_frame_size.0).unwrap_or(usize::MAX);
        self.largest_frame = largest.clamp(codec::SMALLEST_FRAME, LARGEST_FRAME);
        self.peer_idle = open
            .idle_time_out
            .filter(|millis| *millis > 0)
            .map(|millis| Duration::from_millis(millis.into()));
        self.phase = Phase::Open;
        self.write_open();
        Ok(())
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Fault> {
        if channel > CHANNEL_MAX || self.sessions.contains_key(&channel) || begin.remote_channel.is_some() {
            return Err(Fault::framing("the channel of this begin cannot be used"));
        }
        self.sessions.insert(channel, Session::new(begin));
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: 0,
            incoming_window: INCOMING_WINDOW,
            outgoing_window: INCOMING_WINDOW,
            handle_max: Handle(HANDLE_MAX),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        self.write(channel, &answer, 8);
        Ok(())
    }

    fn on_end(&mut self, channel: u16) -> Result<(), Fault> {
        let session = self.sessions.remove(&channel).ok_or(NO_SESSION)?;
        for id in session.handles.into_values() {
            self.over(id);
        }
        self.write(channel, &End { error: None }, 1);
        Ok(())
    }

    fn on_attach(&mut self, channel: u16, attach: Attach) -> Result<(), Fault> {
        let session = self.sessions.get_mut(&channel).ok_or(NO_SESSION)?;
        let handle = attach.handle.0;
        if handle > HANDLE_MAX || session.handles.contains_key(&handle) {
            let condition = SessionError::HandleInUse.into();
            return Err(Fault { condition, text: "the handle of this attach cannot be used" });
        }
        if self.links.len() >= LINKS {
            let condition = AmqpError::ResourceLimitExceeded.into();
            return Err(Fault { condition, text: "the connection has too many links" });
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        session.handles.insert(handle, id);
        let ours = match attach.role {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        };
        let mut link = Link::new(channel, handle, ours);
        link.delivery_count = match link.role {
            Role::Receiver => attach.initial_delivery_count.unwrap_or(0),
            Role::Sender => 0,
        };
        self.links.insert(id, link);
        self.pending.push_back((id, Box::new(attach)));
        Ok(())
    }

    fn on_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        session.window_told(flow);
        let target = flow.handle.as_ref().map(|handle| session.handles.get(&handle.0).copied());
        self.unblock(channel);
        match target {
            None if flow.echo => self.write_session_flow(channel),
            // A link that was detached while this was on its way.
            None | Some(None) => {}
            Some(Some(id)) => {
                let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
                if link.role == Role::Sender
                    && let Some(credit) = flow.link_credit
                {
                    let end = flow.delivery_count.unwrap_or(0).wrapping_add(credit);
                    link.credit = session::until(link.delivery_count, end);
                    link.drain = flow.drain;
                }
                if flow.echo && link.standing == Standing::Attached {
                    self.write_link_flow(id);
                }
            }
        }
        // The session's window concerns them all.
        let ids =
            self.sessions.get(&channel).map(|session| session.handles.values().copied().collect::<Vec<_>>());
        for id in ids.into_iter().flatten() {
            self.wake(id);
        }
        Ok(())
    }

    /// Sends on what waited for the peer's window.
    fn unblock(&mut self, channel: u16) {
        let largest = self.largest_frame;
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        while session.room > 0
            && let Some(blocked) = session.blocked.front_mut()
        {
            let head =
                TransferHead { channel, handle: blocked.handle, delivery: None, settled: blocked.settled };
            let room = codec::transfer_room(&head, largest);
            let part = blocked.rest.split_to(room.min(blocked.rest.len()));
            let more = !blocked.rest.is_empty();
            codec::write_transfer(&mut self.out, &head, more, &part);
            session.frame_sent();
            if !more {
                session.blocked.pop_front();
            }
        }
    }

    fn on_transfer(&mut self, channel: u16, transfer: Transfer, payload: &Bytes) -> Result<(), Fault> {
        let session = self.sessions.get_mut(&channel).ok_or(NO_SESSION)?;
        let report = session.frame_arrived();
        let id = session.handles.get(&transfer.handle.0).copied();
        if report {
            self.write_session_flow(channel);
        }
        let Some(link) = id.and_then(|id| self.links.get_mut(&id)) else {
            let condition = SessionError::UnattachedHandle.into();
            return Err(Fault { condition, text: "a transfer on a handle without a link" });
        };
        let id = id.ok_or(NO_SESSION)?;
        match (link.standing, link.role.clone()) {
            (Standing::Attached, Role::Receiver) => {}
            (_, Role::Sender) => return Err(Fault::not_allowed("a transfer on a link that only receives")),
            // It was on its way when the hub detached the link.
            (Standing::Detaching, _) => return Ok(()),
            _ => return Err(Fault::not_allowed("a transfer before there was credit")),
        }
        let fresh = link.partial.is_none();
        if fresh {
            let Some(number) = transfer.delivery_id else {
                return Err(Fault::not_allowed("the first transfer of a delivery has no delivery-id"));
            };
            if link.credit == 0 {
                let error = error(LinkError::TransferLimitExceeded, "a message was sent without credit");
                self.detach(id, Some(error));
                return Ok(());
            }
            link.credit -= 1;
            link.delivery_count = link.delivery_count.wrapping_add(1);
            link.partial = Some(Partial {
                id: number,
                format: transfer.message_format.unwrap_or(0),
                settled: false,
                oversize: false,
                payload: BytesMut::new(),
            });
        }
        let Some(partial) = &mut link.partial else { return Ok(()) };
        if transfer.delivery_id.is_some_and(|number| number != partial.id) {
            return Err(Fault::not_allowed("a delivery began before the one before it was over"));
        }
        partial.settled |= transfer.settled.unwrap_or(false);
        if transfer.aborted {
            self.held -= partial.payload.len();
            link.partial = None;
            link.done += 1;
            self.replenish(id, 0);
            return Ok(());
        }
        let whole = fresh && !transfer.more;
        let length = partial.payload.len() + payload.len();
        if partial.oversize || length > link.largest {
            self.held -= partial.payload.len();
            partial.payload = BytesMut::new();
            partial.oversize = true;
        } else {
            self.held += payload.len();
            if !whole {
                partial.payload.extend_from_slice(payload);
            }
        }
        if transfer.more {
            return Ok(());
        }
        let Some(partial) = link.partial.take() else { return Ok(()) };
        let payload = match (partial.oversize, whole) {
            (true, _) => Bytes::new(),
            // Shares the memory it was read into.
            (false, true) => payload.clone(),
            (false, false) => partial.payload.freeze(),
        };
        let Partial { id: number, format, settled, oversize, .. } = partial;
        link.arrived.push_back(Delivery { id: number, format, settled, payload, oversize });
        link.wake();
        Ok(())
    }

    fn on_disposition(&mut self, channel: u16, outcome: Outcome) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        if outcome.role == Role::Sender {
            // About messages to the hub: it has settled them itself, or will.
            return Ok(());
        }
        let (first, last) = (outcome.first, outcome.last.unwrap_or(outcome.first));
        let known = session.unsettled_in(first, last);
        if known.is_empty() && !outcome.settled && is_terminal(outcome.state.as_ref()) {
            // The peer waits for an answer about a delivery whose link is gone: its lock is, too.
            let refusal = super::condition::lock_lost();
            let state =
                DeliveryState::Rejected(fe2o3_amqp_types::messaging::Rejected { error: Some(refusal) });
            self.write_disposition(channel, Role::Sender, first, last, Some(state));
            return Ok(());
        }
        for (id, link) in known {
            if outcome.settled {
                session.unsettled.remove(&id);
            } else if !is_terminal(outcome.state.as_ref()) {
                continue;
            }
            if let Some(link) = self.links.get_mut(&link) {
                link.dispositions.push_back(Disposition {
                    id,
                    state: outcome.state.clone(),
                    settled: outcome.settled,
                });
                link.wake();
            }
        }
        Ok(())
    }

    fn on_detach(&mut self, channel: u16, detach: &Detach) -> Result<(), Fault> {
        // A widely used client goes on detaching links after it ended their session.
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        // Both sides may have detached at the same time.
        let Some(id) = session.handles.remove(&detach.handle.0) else { return Ok(()) };
        self.pending.retain(|(pending, _)| *pending != id);
        // One that the hub detached is answered already; one it never attached has no detach.
        let standing = self.links.get(&id).map(|link| link.standing);
        let answer = !matches!(standing, Some(Standing::Detaching | Standing::Pending));
        if answer {
            let answer = Detach { handle: detach.handle.clone(), closed: detach.closed, error: None };
            self.write(channel, &answer, 3);
        }
        self.over(id);
        Ok(())
    }

    /// The peer's side of a link is over.
    fn over(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.standing = Standing::Gone;
        link.wake();
        self.forget_messages(id);
        if self.links.get(&id).is_some_and(|link| !link.held) {
            self.links.remove(&id);
        }
    }

    /// Lets go of what a link that is over still had.
    fn forget_messages(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let partial = link.partial.take().map_or(0, |partial| partial.payload.len());
        self.held -= partial + link.arrived.drain(..).map(|delivery| delivery.payload.len()).sum::<usize>();
        if link.role == Role::Sender
            && let Some(session) = self.sessions.get_mut(&link.channel)
        {
            session.unsettled.retain(|_, owner| *owner != id);
            session.blocked.retain(|blocked| blocked.link != id);
        }
    }

    fn wake(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.wake();
        }
    }

    fn write(&mut self, channel: u16, performative: &impl Serialize, fields: u8) {
        if let Err(error) = codec::write_frame(&mut self.out, FrameType::Amqp, channel, performative, fields)
        {
            tracing::error!(%error, "a frame could not be written");
        }
    }

    fn write_session_flow(&mut self, channel: u16) {
        if let Some(session) = self.sessions.get_mut(&channel) {
            let flow = session.flow();
            self.write(channel, &flow, 11);
        }
    }

    fn write_link_flow(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let Some(session) = self.sessions.get_mut(&link.channel) else { return };
        let flow = Flow {
            handle: Some(Handle(link.handle)),
            delivery_count: Some(link.delivery_count),
            link_credit: Some(link.credit),
            available: (link.role == Role::Sender).then_some(0),
            drain: link.drain,
            ..session.flow()
        };
        let channel = link.channel;
        self.write(channel, &flow, 11);
    }

    fn write_disposition(
        &mut self,
        channel: u16,
        role: Role,
        first: u32,
        last: u32,
        state: Option<DeliveryState>,
    ) {
        let last = (last != first).then_some(last);
        let outcome = Outcome { role, first, last, settled: true, state, batchable: false };
        self.write(channel, &outcome, 6);
    }
}

/// What the holder of a link does.
impl Engine {
    /// Accepts a link. The answer has the peer's own source and target.
    pub(super) fn accept(&mut self, id: LinkId, attach: &Attach, terms: &Terms) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.standing != Standing::Pending {
            return;
        }
        link.standing = Standing::Attached;
        link.largest = terms.largest;
        let receives = link.role == Role::Receiver;
        let answer = Attach {
            name: attach.name.clone(),
            handle: attach.handle.clone(),
            role: link.role.clone(),
            snd_settle_mode: attach.snd_settle_mode.clone(),
            // With `second` the peer would have to settle what the hub has disposed of; some that ask for it do not.
            rcv_settle_mode: match receives {
                true => ReceiverSettleMode::First,
                false => attach.rcv_settle_mode.clone(),
            },
            source: attach.source.clone(),
            target: attach.target.clone(),
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: Some(0),
            max_message_size: u64::try_from(terms.largest).ok(),
            offered_capabilities: (!terms.capabilities.is_empty()).then(|| terms.capabilities.clone().into()),
            desired_capabilities: None,
            properties: None,
        };
        if receives {
            link.window = terms.credit;
            link.credit = terms.credit;
        }
        let channel = link.channel;
        self.write(channel, &answer, 14);
        if receives && terms.credit > 0 {
            self.write_link_flow(id);
        }
        if let Some(error) = self.links.get_mut(&id).and_then(|link| link.doomed.take()) {
            self.detach(id, Some(error));
        }
    }

    /// Refuses a link: attached, as the protocol has it, and detached with the reason.
    pub(super) fn refuse(&mut self, id: LinkId, attach: &Attach, error: Error) {
        self.accept(id, attach, &Terms { largest: 0, credit: 0, capabilities: Vec::new() });
        self.detach(id, Some(error));
        self.release(id);
    }

    /// Detaches a link for good.
    pub(super) fn detach(&mut self, id: LinkId, error: Option<Error>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.standing {
            Standing::Attached => {}
            // It is told as soon as it may be.
            Standing::Pending => {
                link.doomed = link.doomed.take().or(error);
                return;
            }
            Standing::Detaching | Standing::Gone => return,
        }
        link.standing = Standing::Detaching;
        link.wake();
        let (channel, handle) = (link.channel, Handle(link.handle));
        self.forget_messages(id);
        self.write(channel, &Detach { handle, closed: true, error }, 3);
    }

    /// Nobody holds the link any more.
    pub(super) fn release(&mut self, id: LinkId) {
        self.detach(id, None);
        // One that was never decided on waits for the peer to detach it.
        let Some(link) = self.links.get_mut(&id) else { return };
        link.held = false;
        if link.standing == Standing::Gone {
            self.links.remove(&id);
        }
    }

    /// The next message that arrived on a link.
    pub(super) fn poll_arrived(&mut self, id: LinkId, waker: &Waker) -> Poll<Result<Delivery, Ended>> {
        let Some(link) = self.links.get_mut(&id) else { return Poll::Ready(Err(Ended::Detached)) };
        if let Some(ended) = link.ended() {
            return Poll::Ready(Err(ended));
        }
        match link.arrived.pop_front() {
            Some(delivery) => {
                self.held -= delivery.payload.len();
                Poll::Ready(Ok(delivery))
            }
            None => {
                link.wait(waker);
                Poll::Pending
            }
        }
    }

    /// Counts messages of the peer as dealt with: it may send as many more.
    pub(super) fn replenish(&mut self, id: LinkId, count: u32) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.done += count;
        if link.standing == Standing::Attached && !link.stopping && link.done >= (link.window / 2).max(1) {
            link.credit = link.credit.saturating_add(std::mem::take(&mut link.done));
            self.write_link_flow(id);
        }
    }

    /// How many messages may be sent on a link now; at least one.
    pub(super) fn poll_usable(&mut self, id: LinkId, waker: &Waker) -> Poll<Result<u32, Ended>> {
        let Some(link) = self.links.get_mut(&id) else { return Poll::Ready(Err(Ended::Detached)) };
        if let Some(ended) = link.ended() {
            return Poll::Ready(Err(ended));
        }
        let usable = self.sessions.get(&link.channel).map_or(0, Session::usable).min(link.credit);
        if usable > 0 && self.out.len() < UNSENT_BYTES {
            return Poll::Ready(Ok(usable));
        }
        link.wait(waker);
        if usable > 0 && !self.starved.contains(&id) {
            self.starved.push(id);
        }
        Poll::Pending
    }

    /// Sends a message; its number among the deliveries of its session. Takes one of what [`Engine::poll_usable`] told.
    ///
    /// # Errors
    /// When the link is over.
    pub(super) fn transfer(
        &mut self,
        id: LinkId,
        tag: &[u8],
        format: u32,
        settled: bool,
        payload: &[u8],
    ) -> Result<u32, Ended> {
        let largest = self.largest_frame;
        let link = self.links.get_mut(&id).ok_or(Ended::Detached)?;
        if link.standing != Standing::Attached {
            return Err(Ended::Detached);
        }
        let (channel, handle) = (link.channel, link.handle);
        let session = self.sessions.get_mut(&channel).ok_or(Ended::Detached)?;
        link.credit = link.credit.saturating_sub(1);
        link.delivery_count = link.delivery_count.wrapping_add(1);
        let number = session.begin_delivery(id, settled);
        let mut head = TransferHead { channel, handle, delivery: Some((number, tag, format)), settled };
        let mut rest = payload;
        loop {
            if session.room == 0 || !session.blocked.is_empty() {
                // Only ever the rest of a delivery: the first frame had room.
                let rest = Bytes::copy_from_slice(rest);
                session.blocked.push_back(Blocked { link: id, handle, settled, rest });
                return Ok(number);
            }
            let room = codec::transfer_room(&head, largest);
            let (part, left) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            codec::write_transfer(&mut self.out, &head, !left.is_empty(), part);
            session.frame_sent();
            if left.is_empty() {
                return Ok(number);
            }
            rest = left;
            head.delivery = None;
        }
    }

    /// The next thing the peer did about a message it was sent. Also after the link has ended, while there is some.
    pub(super) fn poll_disposition(&mut self, id: LinkId, waker: &Waker) -> Poll<Result<Disposition, Ended>> {
        let Some(link) = self.links.get_mut(&id) else { return Poll::Ready(Err(Ended::Detached)) };
        if let Some(disposition) = link.dispositions.pop_front() {
            return Poll::Ready(Ok(disposition));
        }
        if let Some(ended) = link.ended() {
            return Poll::Ready(Err(ended));
        }
        link.wait(waker);
        Poll::Pending
    }

    /// Disposes of messages `first` to `last` and settles them: of the peer's on a link it sends on, of the hub's on one
    /// it receives on.
    pub(super) fn settle(&mut self, id: LinkId, first: u32, last: u32, state: Option<DeliveryState>) {
        let Some(link) = self.links.get(&id) else { return };
        let (channel, role) = (link.channel, link.role.clone());
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        if role == Role::Sender {
            for (number, owner) in session.unsettled_in(first, last) {
                if owner == id {
                    session.unsettled.remove(&number);
                }
            }
        }
        self.write_disposition(channel, role, first, last, state);
    }

    /// Whether the peer wants to be told when there is nothing more.
    pub(super) fn wants_drained(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.drain && link.standing == Standing::Attached)
    }

    /// Tells a peer that drains the link that there is nothing more now: its credit is used up.
    pub(super) fn drained(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.drain && link.standing == Standing::Attached {
            link.delivery_count = link.delivery_count.wrapping_add(std::mem::take(&mut link.credit));
            self.write_link_flow(id);
            if let Some(link) = self.links.get_mut(&id) {
                link.drain = false;
            }
        }
    }
}

/// A map of symbols to texts.
pub(super) fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> OrderedMap<Symbol, Value> {
    let mut fields = OrderedMap::new();
    for (name, text) in pairs {
        fields.insert(Symbol::from(name), Value::String(text.to_owned()));
    }
    fields
}

fn error(condition: impl Into<ErrorCondition>, text: &str) -> Error {
    Error::new(condition, text.to_owned(), None)
}

fn is_terminal(state: Option<&DeliveryState>) -> bool {
    !matches!(state, None | Some(DeliveryState::Received(_)))
}

const NO_SESSION: Fault = Fault {
    condition: ErrorCondition::ConnectionError(ConnectionError::FramingError),
    text: "a frame on a channel without a session",
};
