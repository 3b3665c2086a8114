//! What is said on a connection: a plain state machine fed with frames, which leaves the bytes to be written behind.
//! One AMQP session with up to four links: two to `$cbs`, one for events, one for commands. Numbers of sections are
//! those of AMQP 1.0, part 2.
//!
//! How outcomes map: contract `amqp.md`, "Device links". Commands are asked for with rcv-settle-mode second, so that the
//! hub answers each settlement and says when the lock was lost. A hub that knows only mode first gives no answers; there
//! the echo of a flow that was sent after the settlement shows that it has it, and a lost lock goes unnoticed.

use std::{
    collections::{HashMap, VecDeque},
    mem::take,
};

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::{self, Fields, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{
        Accepted, Body, DeliveryState, Rejected, Released, Source, Target, TargetArchetype,
        message::DecodeIntoMessage,
    },
    performatives::{Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Transfer},
    primitives::{Symbol, Value},
};
use serde_amqp::read::SliceReader;

use super::{
    cbs, fault,
    frame::{self, Frame, HEADER, MAX_FRAME, MIN_MAX_FRAME, code, violation},
};
use crate::{
    Error, ErrorKind, Lane, Result,
    delivery::Verdict,
    outbox::{Queued, Sequence},
    transport::{
        Answer, Arrived, Handle, Incoming, Settled, Settlement, identity::AGENT, socket::unreachable,
    },
    wire::amqp::{self, AmqpMessage, annotation},
};

/// Transfers the server may send before we tell it that there is room for more.
const INCOMING_WINDOW: u32 = 2_048;
/// Answers of `$cbs` that may be on the way.
const TOKEN_CREDIT: u32 = 8;
/// Largest command that is put together from its pieces: twice what a hub may send.
const COMMAND_LIMIT: usize = 128 * 1024;

/// Who we are and what we want, for OPEN and the links.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) container_id: String,
    pub(super) host_name: String,
    pub(super) device_id: String,
    pub(super) module_id: Option<String>,
    /// How often the server is to say something, in milliseconds.
    pub(super) idle_time_out: u32,
    /// Whether a token has to be put before anything else.
    pub(super) by_token: bool,
}

/// How far opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    Open,
    Begin,
    Tokens,
    Events,
    Up,
}

/// The state machine of one connection.
pub(super) struct Session {
    terms: Terms,
    phase: Phase,
    /// What is to be written.
    out: BytesMut,
    /// Largest frame the server takes.
    max_frame: usize,
    /// How long it wants to wait for something from us, in milliseconds.
    server_idle: Option<u32>,
    /// Channel of its frames.
    channel: u16,
    next_outgoing_id: u32,
    /// Transfers it still takes.
    window: u32,
    next_incoming_id: u32,
    /// Transfers it may still send.
    incoming_window: u32,
    token_sender: SenderLink,
    token_receiver: ReceiverLink,
    events: SenderLink,
    /// Largest event the server takes, if it has a limit.
    max_message: u64,
    commands: Option<Commands>,
    /// What is sent and has no outcome yet, by delivery-id from `first_unsettled` on.
    unsettled: VecDeque<Option<Sent>>,
    first_unsettled: u32,
    /// Events the server has no credit or window for yet.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    scratch: BytesMut,
    /// The token that is to go out as soon as `$cbs` has credit: its id, and the bytes.
    token: Option<(String, BytesMut)>,
    token_asked: Option<String>,
    token_answer: Option<Result<()>>,
}

/// The sending end of a link.
#[derive(Debug, Default)]
struct SenderLink {
    remote_handle: Option<u32>,
    delivery_count: u32,
    credit: u32,
}

/// The receiving end of a link.
#[derive(Debug, Default)]
struct ReceiverLink {
    remote_handle: Option<u32>,
    delivery_count: u32,
    credit: u32,
    partial: Option<Partial>,
}

/// A delivery whose last piece has not come.
#[derive(Debug)]
struct Partial {
    delivery_id: u32,
    settled: bool,
    payload: BytesMut,
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Event(Lane, Sequence),
    Token,
}

struct Waiting {
    lane: Lane,
    sequence: Sequence,
    payload: Bytes,
    /// The first piece is out.
    begun: bool,
}

struct Commands {
    link: ReceiverLink,
    /// Most commands that are unsettled at once.
    window: u32,
    /// The hub answers settlements.
    second: bool,
    /// By delivery-id.
    held: HashMap<u32, Held>,
    /// Settled in mode first, and the hub has not shown yet that it knows.
    unproven: Vec<u32>,
    /// A flow with echo is out, and these were settled before it.
    echoing: Option<Vec<u32>>,
}

/// A command we hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The program has it.
    Open,
    /// As [`Held::Open`], but the hub settled it by sending it: there is nothing to say.
    Presettled,
    /// Said to the hub.
    Settling(Settlement),
    /// Refused by us because it cannot be read; nobody waits for the answer.
    Unreadable,
}

/// Our handles.
const TOKENS_OUT: u32 = 0;
const TOKENS_IN: u32 = 1;
const EVENTS: u32 = 2;
const COMMANDS: u32 = 3;

const fn link_name(handle: u32) -> &'static str {
    match handle {
        TOKENS_OUT => "cbs-sender",
        TOKENS_IN => "cbs-receiver",
        EVENTS => "events",
        _ => "commands",
    }
}

impl Session {
    /// Ready to begin, past SASL.
    pub(super) fn new(terms: Terms) -> Self {
        let mut out = BytesMut::new();
        out.extend_from_slice(&super::door::AMQP_HEADER);
        Self {
            terms,
            phase: Phase::Header,
            out,
            max_frame: MIN_MAX_FRAME,
            server_idle: None,
            channel: 0,
            next_outgoing_id: 0,
            window: 0,
            next_incoming_id: 0,
            incoming_window: INCOMING_WINDOW,
            token_sender: SenderLink::default(),
            token_receiver: ReceiverLink::default(),
            events: SenderLink::default(),
            max_message: 0,
            commands: None,
            unsettled: VecDeque::new(),
            first_unsettled: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            scratch: BytesMut::new(),
            token: None,
            token_asked: None,
            token_answer: None,
        }
    }

    /// What is to be written; the caller takes away what was.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Bytes that are to be written, now or when the server has room.
    pub(super) fn backlog(&self) -> usize {
        self.out.len() + self.waiting_bytes
    }

    /// Whether events can be published.
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether it is time to put a token for the first time.
    pub(super) fn wants_token(&self) -> bool {
        self.phase == Phase::Tokens && self.token.is_none() && self.token_asked.is_none()
    }

    /// How often the server wants to hear something from us, in milliseconds.
    pub(super) fn server_idle(&self) -> Option<u32> {
        self.server_idle
    }

    /// The hub's answer to the last token, once.
    pub(super) fn token_answer(&mut self) -> Option<Result<()>> {
        self.token_answer.take()
    }

    /// Takes what it can from the input; gives how many bytes that were. Zero when more are needed.
    pub(super) fn take(&mut self, input: &[u8], incoming: &mut Incoming) -> Result<usize> {
        if self.phase == Phase::Header {
            let Some(header) = input.first_chunk::<HEADER>() else { return Ok(0) };
            if *header != super::door::AMQP_HEADER {
                let message = "the server does not speak AMQP 1.0 (section 2.2)";
                return Err(Error::new(ErrorKind::Unsupported, "device.connect", message));
            }
            self.phase = Phase::Open;
            self.send_open();
            return Ok(HEADER);
        }
        let Some(frame) = frame::first(input)? else { return Ok(0) };
        self.frame(frame, incoming)?;
        Ok(frame.length)
    }

    /// Takes an event to be sent. `Err` says why it never can be.
    pub(super) fn publish(&mut self, queued: &Queued) -> std::result::Result<(), String> {
        self.scratch.clear();
        amqp::encode_into(&queued.message, &mut self.scratch);
        let size = self.scratch.len() as u64;
        if self.max_message != 0 && size > self.max_message {
            return Err(format!(
                "it takes {size} bytes on AMQP, and the hub's limit is {}",
                self.max_message
            ));
        }
        let (lane, sequence) = (queued.lane, queued.sequence);
        if self.waiting.is_empty() && self.events.credit > 0 && self.window > 0 {
            let scratch = take(&mut self.scratch);
            if scratch.len() <= self.piece() {
                self.begin_event(lane, sequence);
                self.put_transfer(EVENTS, true, false, &scratch);
                self.scratch = scratch;
                return Ok(());
            }
            self.scratch = scratch;
        }
        let payload = self.scratch.split().freeze();
        self.waiting_bytes += payload.len();
        self.waiting.push_back(Waiting { lane, sequence, payload, begun: false });
        self.pump();
        Ok(())
    }

    /// Puts a token as soon as the hub takes one.
    pub(super) fn put_token(&mut self, id: String, audience: &str, token: &str) {
        let mut payload = BytesMut::new();
        cbs::put_token_into(&id, audience, token, &mut payload);
        self.token = Some((id, payload));
        self.pump();
    }

    /// Has the hub send commands, at most `window` unsettled at once. A module has no commands: then nothing happens.
    pub(super) fn receive_commands(&mut self, window: u16) {
        if self.terms.module_id.is_some() || self.commands.is_some() {
            return;
        }
        self.commands = Some(Commands {
            link: ReceiverLink::default(),
            window: u32::from(window.max(1)),
            second: true,
            held: HashMap::new(),
            unproven: Vec::new(),
            echoing: None,
        });
        let source = Source::builder().address(amqp::device_commands(&self.terms.device_id)).build();
        self.attach(COMMANDS, Role::Receiver, source, Target::default(), ReceiverSettleMode::Second);
    }

    /// Settles a command; what came of it is told later, unless it is known at once.
    pub(super) fn settle(&mut self, handle: Handle, settlement: Settlement, settled: &mut Vec<Settled>) {
        let id = u32::try_from(handle).ok();
        let known = self.commands.as_mut().zip(id);
        let Some((commands, id, held)) =
            known.and_then(|(commands, id)| commands.held.get(&id).copied().map(|held| (commands, id, held)))
        else {
            return settled.push(Settled { handle, result: Err(settled_twice()) });
        };
        match held {
            Held::Settling(_) | Held::Unreadable => {
                settled.push(Settled { handle, result: Err(settled_twice()) });
            }
            Held::Presettled => {
                commands.held.remove(&id);
                settled.push(Settled { handle, result: Ok(()) });
                self.grant();
            }
            Held::Open => {
                commands.held.insert(id, Held::Settling(settlement));
                self.say(id, settlement);
            }
        }
    }

    /// Says goodbye; nothing may be said after it.
    pub(super) fn close(&mut self) {
        if matches!(self.phase, Phase::Header | Phase::Open) {
            return;
        }
        frame::put(&mut self.out, 0, &Close { error: None });
    }

    fn send_open(&mut self) {
        let mut properties = Fields::new();
        properties.insert(Symbol::from("product"), Value::String(AGENT.to_owned()));
        let open = Open {
            container_id: self.terms.container_id.clone(),
            hostname: Some(self.terms.host_name.clone()),
            max_frame_size: (MAX_FRAME as u32).into(),
            channel_max: 0.into(),
            idle_time_out: Some(self.terms.idle_time_out),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: Some(properties),
        };
        frame::put(&mut self.out, 0, &open);
    }

    fn frame(&mut self, frame: Frame<'_>, incoming: &mut Incoming) -> Result<()> {
        if frame.kind != frame::kind::AMQP {
            return Err(violation("the server sent a frame that is not of AMQP (section 2.3.2)"));
        }
        if frame.body.is_empty() {
            return Ok(());
        }
        let (descriptor, performative, payload) = frame.performative()?;
        match (descriptor, self.phase) {
            (code::OPEN, Phase::Open) => {
                self.opened(&frame::read(performative)?);
                return Ok(());
            }
            (code::CLOSE, _) => return Err(closed(frame::read(performative)?)),
            (code::BEGIN, Phase::Begin) => {
                self.begun(frame.channel, &frame::read(performative)?);
                return Ok(());
            }
            (_, Phase::Open | Phase::Begin) => {
                return Err(violation("the server sent a frame before its time (section 2.4.1)"));
            }
            _ => {}
        }
        if frame.channel != self.channel {
            return Err(violation("the server sent a frame on a channel that is not open (section 2.5.1)"));
        }
        match descriptor {
            code::ATTACH => self.attached(frame::read(performative)?),
            code::FLOW => self.flowed(&frame::read(performative)?, incoming),
            code::TRANSFER => self.transferred(frame::read(performative)?, payload, incoming),
            code::DISPOSITION => self.disposed(frame::read(performative)?, incoming),
            code::DETACH => Err(self.detached(frame::read(performative)?)),
            code::END => {
                let end: End = frame::read(performative)?;
                Err(ended("the hub ended the session", end.error.as_ref()))
            }
            _ => Err(violation("the server sent a performative that is none, or out of order (section 2.7)")),
        }
    }

    fn opened(&mut self, open: &Open) {
        self.max_frame =
            usize::try_from(open.max_frame_size.0).unwrap_or(usize::MAX).clamp(MIN_MAX_FRAME, MAX_FRAME);
        self.server_idle = open.idle_time_out.filter(|millis| *millis > 0);
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: self.next_outgoing_id,
            incoming_window: INCOMING_WINDOW,
            outgoing_window: u32::from(u16::MAX),
            handle_max: COMMANDS.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        frame::put(&mut self.out, 0, &begin);
        self.phase = Phase::Begin;
    }

    fn begun(&mut self, channel: u16, begin: &Begin) {
        self.channel = channel;
        self.next_incoming_id = begin.next_outgoing_id;
        self.window = begin.incoming_window;
        if self.terms.by_token {
            self.phase = Phase::Tokens;
            let here = || Source::builder().address(amqp::CBS).build();
            let there = || Target::builder().address(amqp::CBS).build();
            self.attach(TOKENS_OUT, Role::Sender, here(), there(), ReceiverSettleMode::First);
            self.attach(TOKENS_IN, Role::Receiver, here(), there(), ReceiverSettleMode::First);
        } else {
            self.attach_events();
        }
    }

    fn attach_events(&mut self) {
        self.phase = Phase::Events;
        let address = amqp::device_events(&self.terms.device_id, self.terms.module_id.as_deref());
        let target = Target::builder().address(address).build();
        self.attach(EVENTS, Role::Sender, Source::default(), target, ReceiverSettleMode::First);
    }

    fn attach(&mut self, handle: u32, role: Role, source: Source, target: Target, mode: ReceiverSettleMode) {
        let mut properties = Fields::new();
        properties.insert(Symbol::from("com.microsoft:client-version"), Value::String(AGENT.to_owned()));
        let sends = role == Role::Sender;
        let attach = Attach {
            name: link_name(handle).to_owned(),
            handle: handle.into(),
            role,
            snd_settle_mode: SenderSettleMode::Unsettled,
            rcv_settle_mode: mode,
            source: Some(Box::new(source)),
            target: Some(Box::new(TargetArchetype::Target(target))),
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: sends.then_some(0),
            max_message_size: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: Some(properties),
        };
        frame::put(&mut self.out, 0, &attach);
    }

    fn attached(&mut self, attach: Attach) -> Result<()> {
        let handle = attach.handle.0;
        let delivery_count = attach.initial_delivery_count.unwrap_or(0);
        // A link the hub does not want comes without its far end, and a detach that says why follows (section 2.6.3).
        let refused = match attach.role {
            Role::Receiver => attach.target.is_none(),
            Role::Sender => attach.source.is_none(),
        };
        match (attach.name.as_str(), &attach.role) {
            (name, Role::Receiver) if name == link_name(TOKENS_OUT) => {
                self.token_sender.remote_handle = Some(handle);
            }
            (name, Role::Sender) if name == link_name(TOKENS_IN) => {
                let link = &mut self.token_receiver;
                (link.remote_handle, link.delivery_count, link.credit) =
                    (Some(handle), delivery_count, TOKEN_CREDIT);
                self.send_flow(Some(TOKENS_IN), false);
            }
            (name, Role::Receiver) if name == link_name(EVENTS) => {
                self.events.remote_handle = Some(handle);
                self.max_message = attach.max_message_size.unwrap_or(0);
                if !refused && self.phase == Phase::Events {
                    self.phase = Phase::Up;
                }
            }
            (name, Role::Sender) if name == link_name(COMMANDS) => {
                let Some(commands) = &mut self.commands else {
                    return Err(violation(
                        "the server attached a link that nobody asked for (section 2.6.3)",
                    ));
                };
                (commands.link.remote_handle, commands.link.delivery_count) = (Some(handle), delivery_count);
                commands.second = attach.rcv_settle_mode == ReceiverSettleMode::Second;
                if !refused {
                    self.grant();
                }
            }
            _ => return Err(violation("the server attached a link that nobody asked for (section 2.6.3)")),
        }
        Ok(())
    }

    fn flowed(&mut self, flow: &Flow, incoming: &mut Incoming) -> Result<()> {
        // Section 2.5.6: what it takes is counted from what it has seen of us.
        let seen = flow.next_incoming_id.unwrap_or(0);
        self.window = seen.wrapping_add(flow.incoming_window).wrapping_sub(self.next_outgoing_id);
        // A window that seems to have gone below zero is one we have filled.
        if self.window > u32::MAX / 2 {
            self.window = 0;
        }
        let handle = flow.handle.as_ref().map(|handle| handle.0);
        if let Some(handle) = handle {
            let (link, ours) = if self.events.remote_handle == Some(handle) {
                (&mut self.events, EVENTS)
            } else if self.token_sender.remote_handle == Some(handle) {
                (&mut self.token_sender, TOKENS_OUT)
            } else {
                // The sender's view of a link we receive on holds nothing new; its coming may.
                self.receiver_flowed(handle, flow, incoming)?;
                self.pump();
                return Ok(());
            };
            // Section 2.6.7.
            let base = flow.delivery_count.unwrap_or(0);
            let credit = base.wrapping_add(flow.link_credit.unwrap_or(0)).wrapping_sub(link.delivery_count);
            link.credit = if credit > u32::MAX / 2 { 0 } else { credit };
            self.pump();
            let link = if ours == EVENTS { &mut self.events } else { &mut self.token_sender };
            if flow.drain {
                link.delivery_count = link.delivery_count.wrapping_add(take(&mut link.credit));
            }
            if flow.drain || flow.echo {
                self.send_flow(Some(ours), false);
            }
            return Ok(());
        }
        if flow.echo {
            self.send_flow(None, false);
        }
        self.pump();
        Ok(())
    }

    fn receiver_flowed(&mut self, handle: u32, flow: &Flow, incoming: &mut Incoming) -> Result<()> {
        if self.token_receiver.remote_handle == Some(handle) {
            if flow.echo {
                self.send_flow(Some(TOKENS_IN), false);
            }
            return Ok(());
        }
        let Some(commands) = self.commands.as_mut().filter(|known| known.link.remote_handle == Some(handle))
        else {
            return Err(violation("the server spoke of a link that is not attached (section 2.6.2)"));
        };
        if let Some(proven) = commands.echoing.take() {
            for id in proven {
                if let Some(Held::Settling(_)) = commands.held.remove(&id) {
                    incoming.settled.push(Settled { handle: u64::from(id), result: Ok(()) });
                }
            }
            self.ask_for_proof();
            self.grant();
        }
        if flow.echo {
            self.send_flow(Some(COMMANDS), false);
        }
        Ok(())
    }

    /// Sends what waits, as far as credit and window go.
    fn pump(&mut self) {
        if self.token_sender.credit > 0
            && let Some((id, mut payload)) = self.token.take_if(|(_, payload)| {
                // All of it or nothing: other pieces may be under way.
                payload.len().div_ceil(piece(self.max_frame)) <= self.window as usize
            })
        {
            self.token_sender.credit -= 1;
            self.token_sender.delivery_count = self.token_sender.delivery_count.wrapping_add(1);
            self.unsettled.push_back(Some(Sent::Token));
            let mut first = true;
            while !payload.is_empty() {
                let piece = payload.split_to(payload.len().min(self.piece()));
                self.put_transfer(TOKENS_OUT, first, !payload.is_empty(), &piece);
                first = false;
            }
            self.token_asked = Some(id);
        }
        while self.window > 0 && self.phase == Phase::Up {
            let Some(event) = self.waiting.front_mut() else { return };
            let first = !event.begun;
            if first && self.events.credit == 0 {
                return;
            }
            event.begun = true;
            let (lane, sequence) = (event.lane, event.sequence);
            let piece = event.payload.split_to(event.payload.len().min(piece(self.max_frame)));
            let more = !event.payload.is_empty();
            self.waiting_bytes -= piece.len();
            if first {
                self.begin_event(lane, sequence);
            }
            if !more {
                self.waiting.pop_front();
            }
            self.put_transfer(EVENTS, first, more, &piece);
        }
    }

    /// Accounts for an event whose first piece goes out now.
    fn begin_event(&mut self, lane: Lane, sequence: Sequence) {
        self.events.credit -= 1;
        self.events.delivery_count = self.events.delivery_count.wrapping_add(1);
        self.unsettled.push_back(Some(Sent::Event(lane, sequence)));
    }

    /// Most bytes of a message in one frame.
    fn piece(&self) -> usize {
        piece(self.max_frame)
    }

    /// Writes one piece of the delivery that was taken up last on a link.
    fn put_transfer(&mut self, handle: u32, first: bool, more: bool, payload: &[u8]) {
        let behind = self.unsettled.len().saturating_sub(1);
        let id = self.first_unsettled.wrapping_add(u32::try_from(behind).unwrap_or(u32::MAX));
        let transfer = Transfer {
            handle: handle.into(),
            delivery_id: first.then_some(id),
            delivery_tag: first.then(|| id.to_be_bytes().to_vec().into()),
            message_format: first.then_some(0),
            settled: Some(false),
            more,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: true,
        };
        frame::put_frame(&mut self.out, frame::kind::AMQP, 0, &transfer, payload);
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
        self.window = self.window.saturating_sub(1);
    }

    /// Tells the server what it may send: on a link we receive on, how many; on the others, that nothing is withheld.
    fn send_flow(&mut self, handle: Option<u32>, echo: bool) {
        self.incoming_window = INCOMING_WINDOW;
        let (delivery_count, link_credit) = match handle {
            Some(EVENTS) => (Some(self.events.delivery_count), Some(self.events.credit)),
            Some(TOKENS_OUT) => (Some(self.token_sender.delivery_count), Some(self.token_sender.credit)),
            Some(TOKENS_IN) => (Some(self.token_receiver.delivery_count), Some(self.token_receiver.credit)),
            Some(_) => {
                let link = self.commands.as_ref().map(|commands| &commands.link);
                (link.map(|link| link.delivery_count), link.map(|link| link.credit))
            }
            None => (None, None),
        };
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: INCOMING_WINDOW,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: u32::from(u16::MAX),
            handle: handle.map(Into::into),
            delivery_count,
            link_credit,
            available: None,
            drain: false,
            echo,
            properties: None,
        };
        frame::put(&mut self.out, 0, &flow);
    }

    /// Gives the hub credit for as many commands as the window has room for, some at a time.
    fn grant(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        if commands.link.remote_handle.is_none() {
            return;
        }
        let held = u32::try_from(commands.held.len()).unwrap_or(u32::MAX);
        let wanted = commands.window.saturating_sub(held);
        let lacking = wanted.saturating_sub(commands.link.credit);
        if lacking > 0 && (commands.link.credit == 0 || lacking * 2 >= commands.window) {
            commands.link.credit = wanted;
            self.send_flow(Some(COMMANDS), false);
        }
    }

    fn transferred(&mut self, transfer: Transfer, payload: &[u8], incoming: &mut Incoming) -> Result<()> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        self.incoming_window = self
            .incoming_window
            .checked_sub(1)
            .ok_or_else(|| violation("the server sent more transfers than it may (section 2.5.6)"))?;
        let handle = transfer.handle.0;
        let tokens = self.token_receiver.remote_handle == Some(handle);
        let link = match (tokens, &mut self.commands) {
            (true, _) => &mut self.token_receiver,
            (false, Some(commands)) if commands.link.remote_handle == Some(handle) => &mut commands.link,
            _ => {
                return Err(violation(
                    "the server sent a message on a link that is not ours (section 2.6.2)",
                ));
            }
        };
        let whole = link.put_together(transfer, payload)?;
        if self.incoming_window < INCOMING_WINDOW / 2 {
            self.send_flow(None, false);
        }
        let Some(Partial { delivery_id, settled, payload }) = whole else { return Ok(()) };
        let message = Body::<Value>::decode_message_from_reader(SliceReader::new(&payload));
        if tokens {
            return self.token_answered(delivery_id, settled, message.ok());
        }
        self.command_arrived(delivery_id, settled, message.ok(), incoming);
        Ok(())
    }

    fn token_answered(
        &mut self,
        delivery_id: u32,
        settled: bool,
        message: Option<AmqpMessage>,
    ) -> Result<()> {
        if !settled {
            self.put_disposition(delivery_id, true, DeliveryState::Accepted(Accepted {}));
        }
        self.token_receiver.credit = TOKEN_CREDIT;
        self.send_flow(Some(TOKENS_IN), false);
        let message = message.ok_or_else(|| violation("the answer to a token is malformed (section 3.2)"))?;
        let Some(result) = self.token_asked.as_ref().and_then(|id| cbs::answer(id, &message)) else {
            return Ok(());
        };
        self.token_asked = None;
        if result.is_ok() && self.phase == Phase::Tokens {
            self.attach_events();
        }
        self.token_answer = Some(result);
        Ok(())
    }

    fn command_arrived(
        &mut self,
        delivery_id: u32,
        settled: bool,
        message: Option<AmqpMessage>,
        incoming: &mut Incoming,
    ) {
        let Some(commands) = &mut self.commands else { return };
        // The lane is the outbox's idea; a command has none.
        let Some(decoded) = message.and_then(|message| amqp::decode(message, Lane::Telemetry).ok()) else {
            tracing::warn!("a command that cannot be read was rejected");
            if !settled {
                commands.held.insert(delivery_id, Held::Unreadable);
                self.say(delivery_id, Settlement::Reject);
            }
            return;
        };
        let known = |name| amqp::annotation(&decoded.annotations, name);
        let (sequence, count) = (known(annotation::SEQUENCE), known(annotation::DELIVERY_COUNT));
        incoming.commands.push(Arrived {
            handle: u64::from(delivery_id),
            sequence: sequence.and_then(amqp::number),
            enqueued_at: known(annotation::ENQUEUED_AT).and_then(amqp::time),
            delivery_count: count.and_then(amqp::number).and_then(|count| u32::try_from(count).ok()),
            message: decoded.message,
        });
        commands.held.insert(delivery_id, if settled { Held::Presettled } else { Held::Open });
    }

    /// Tells the hub what is to become of a command.
    fn say(&mut self, delivery_id: u32, settlement: Settlement) {
        let second = self.commands.as_ref().is_some_and(|commands| commands.second);
        self.put_disposition(delivery_id, !second, state(settlement));
        if second {
            return;
        }
        if let Some(commands) = &mut self.commands {
            match commands.held.get(&delivery_id) {
                Some(Held::Unreadable) => drop(commands.held.remove(&delivery_id)),
                _ => commands.unproven.push(delivery_id),
            }
        }
        self.ask_for_proof();
        self.grant();
    }

    /// In mode first: has the hub say something after what was settled.
    fn ask_for_proof(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        if commands.echoing.is_none() && !commands.unproven.is_empty() {
            commands.echoing = Some(take(&mut commands.unproven));
            self.send_flow(Some(COMMANDS), true);
        }
    }

    fn put_disposition(&mut self, delivery_id: u32, settled: bool, state: DeliveryState) {
        let disposition = Disposition {
            role: Role::Receiver,
            first: delivery_id,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        };
        frame::put(&mut self.out, 0, &disposition);
    }

    fn disposed(&mut self, disposition: Disposition, incoming: &mut Incoming) -> Result<()> {
        match disposition.role {
            Role::Receiver => self.sent_disposed(&disposition, incoming),
            Role::Sender => {
                self.commands_disposed(&disposition, incoming);
                Ok(())
            }
        }
    }

    /// Outcomes of what we sent.
    fn sent_disposed(&mut self, disposition: &Disposition, incoming: &mut Incoming) -> Result<()> {
        let terminal = disposition.state.as_ref().is_some_and(DeliveryState::is_terminal);
        if !disposition.settled && !terminal {
            return Ok(());
        }
        let last = disposition.last.unwrap_or(disposition.first);
        // Relative to the first one open, which may lie behind the begin of the range: those before it are settled.
        let begin = i64::from(disposition.first.wrapping_sub(self.first_unsettled).cast_signed());
        let end = begin + i64::from(last.wrapping_sub(disposition.first)) + 1;
        let open = self.unsettled.len();
        let Some(end) = usize::try_from(end).ok().filter(|end| *end <= open) else {
            if end <= 0 {
                return Ok(());
            }
            return Err(violation("the server settled what was not sent (section 2.6.12)"));
        };
        let begin = usize::try_from(begin).unwrap_or(0);
        for place in begin..end {
            match self.unsettled.get_mut(place).and_then(Option::take) {
                Some(Sent::Event(lane, sequence)) => {
                    let verdict = verdict(disposition.state.as_ref())?;
                    incoming.answers.push(Answer { lane, sequence, verdict });
                }
                Some(Sent::Token) if !accepted(disposition.state.as_ref()) => {
                    return Err(ended("the hub took no token", said(disposition.state.as_ref())));
                }
                Some(Sent::Token) | None => {}
            }
        }
        while let Some(None) = self.unsettled.front() {
            self.unsettled.pop_front();
            self.first_unsettled = self.first_unsettled.wrapping_add(1);
        }
        if !disposition.settled {
            // It waits for us to forget (section 2.6.12).
            let answer = Disposition { role: Role::Sender, settled: true, ..disposition.clone() };
            frame::put(&mut self.out, 0, &answer);
        }
        Ok(())
    }

    /// Answers to our settlements of commands, or locks the hub took back by itself.
    fn commands_disposed(&mut self, disposition: &Disposition, incoming: &mut Incoming) {
        let Some(commands) = self.commands.as_mut().filter(|_| disposition.settled) else { return };
        let (first, last) = (disposition.first, disposition.last.unwrap_or(disposition.first));
        let within = |id: u32| id.wrapping_sub(first) <= last.wrapping_sub(first);
        let mut ids: Vec<u32> = match first == last {
            true => vec![first],
            false => commands.held.keys().copied().filter(|id| within(*id)).collect(),
        };
        ids.sort_unstable();
        for id in ids {
            match commands.held.get(&id) {
                Some(Held::Settling(settlement)) => {
                    let result = answered(*settlement, disposition.state.as_ref());
                    incoming.settled.push(Settled { handle: u64::from(id), result });
                    commands.held.remove(&id);
                }
                Some(Held::Unreadable) => drop(commands.held.remove(&id)),
                // Settled by the hub while the program still has it: what the program says will get its answer then.
                Some(Held::Open | Held::Presettled) | None => {}
            }
        }
        self.grant();
    }

    fn detached(&mut self, detach: Detach) -> Error {
        let handle = Some(detach.handle.0);
        let doing = if handle == self.events.remote_handle {
            "the hub ended the link for messages"
        } else if handle == self.token_sender.remote_handle || handle == self.token_receiver.remote_handle {
            "the hub ended the link for tokens"
        } else {
            "the hub ended the link for commands"
        };
        ended(doing, detach.error.as_ref())
    }
}

impl ReceiverLink {
    /// Adds a piece; gives the delivery when it is whole.
    fn put_together(&mut self, transfer: Transfer, payload: &[u8]) -> Result<Option<Partial>> {
        let malformed = || violation("the server sent a malformed transfer (section 2.7.5)");
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => {
                self.credit = self.credit.checked_sub(1).ok_or_else(|| {
                    violation("the server sent more messages than it has credit for (section 2.6.7)")
                })?;
                self.delivery_count = self.delivery_count.wrapping_add(1);
                let delivery_id = transfer.delivery_id.ok_or_else(malformed)?;
                Partial { delivery_id, settled: false, payload: BytesMut::new() }
            }
        };
        if transfer.aborted {
            return Ok(None);
        }
        partial.settled |= transfer.settled.unwrap_or(false);
        partial.payload.extend_from_slice(payload);
        if partial.payload.len() > COMMAND_LIMIT {
            return Err(violation("the server sent a message over every limit of the contract"));
        }
        if transfer.more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial))
    }
}

/// Most bytes of a message in one frame of at most `max_frame`.
const fn piece(max_frame: usize) -> usize {
    // A transfer as we write it takes under 40 bytes.
    max_frame - HEADER - 64
}

fn state(settlement: Settlement) -> DeliveryState {
    match settlement {
        Settlement::Complete => DeliveryState::Accepted(Accepted {}),
        Settlement::Abandon => DeliveryState::Released(Released {}),
        Settlement::Reject => DeliveryState::Rejected(Rejected { error: None }),
    }
}

/// What the hub's answer to a settlement says.
fn answered(settlement: Settlement, state: Option<&DeliveryState>) -> Result<()> {
    match (settlement, state) {
        (_, Some(DeliveryState::Rejected(Rejected { error: Some(error) }))) => {
            Err(fault::told("command.settle", "the hub did not take the settlement", error))
        }
        (Settlement::Complete, Some(DeliveryState::Accepted(_)) | None)
        | (Settlement::Abandon, Some(DeliveryState::Released(_) | DeliveryState::Modified(_)) | None)
        | (Settlement::Reject, Some(DeliveryState::Rejected(_)) | None) => Ok(()),
        _ => Err(Error::new(
            ErrorKind::LockLost,
            "command.settle",
            "the hub settled the command in another way",
        )),
    }
}

/// What the hub said about a message, or why the connection ends by it: a refusal of who we are is not one of the
/// message.
fn verdict(state: Option<&DeliveryState>) -> Result<Verdict> {
    let refused = |retryable, reason: &str| Ok(Verdict::Refused { retryable, reason: reason.to_owned() });
    match state {
        Some(DeliveryState::Accepted(_)) => Ok(Verdict::Stored { partition: None, sequence: None }),
        Some(DeliveryState::Rejected(Rejected { error: Some(error) })) => {
            let condition = fault::condition(error);
            let retryable = match device_kind(&condition) {
                ErrorKind::Unauthorized => return Err(ended("the hub refused the device", Some(error))),
                ErrorKind::InvalidArgument
                | ErrorKind::PayloadTooLarge
                | ErrorKind::Unsupported
                | ErrorKind::Protocol => false,
                _ => true,
            };
            let reason = match &error.description {
                Some(text) => format!("{condition}: {}", fault::shortened(text)),
                None => condition,
            };
            Ok(Verdict::Refused { retryable, reason })
        }
        Some(DeliveryState::Rejected(Rejected { error: None })) => {
            refused(false, "rejected, without a reason")
        }
        Some(DeliveryState::Released(_) | DeliveryState::Modified(_)) => refused(true, "released"),
        Some(DeliveryState::Received(_)) | None => refused(true, "settled without an outcome"),
    }
}

fn accepted(state: Option<&DeliveryState>) -> bool {
    matches!(state, Some(DeliveryState::Accepted(_)) | None)
}

fn said(state: Option<&DeliveryState>) -> Option<&definitions::Error> {
    match state {
        Some(DeliveryState::Rejected(Rejected { error })) => error.as_ref(),
        _ => None,
    }
}

/// What a condition is on a device's own links: a quota where a service has a full queue, and a device nobody knows, or
/// that was disabled, is refused as on MQTT.
fn device_kind(condition: &str) -> ErrorKind {
    match fault::kind(condition) {
        ErrorKind::QueueFull => ErrorKind::Throttled,
        ErrorKind::NotFound => ErrorKind::Unauthorized,
        kind => kind,
    }
}

/// Why the connection is over.
fn ended(doing: &'static str, said: Option<&definitions::Error>) -> Error {
    let Some(said) = said else { return unreachable(doing) };
    let told = fault::told("device.connect", doing, said);
    let kind = device_kind(&fault::condition(said));
    if kind == told.kind() {
        return told;
    }
    let mut error = Error::new(kind, "device.connect", doing);
    for (name, value) in told.details() {
        error = error.with(name, value);
    }
    match told.wait_hint() {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

fn closed(close: Close) -> Error {
    ended("the hub closed the connection", close.error.as_ref())
}

fn settled_twice() -> Error {
    Error::new(ErrorKind::Conflict, "command.settle", "the command was settled before")
}
