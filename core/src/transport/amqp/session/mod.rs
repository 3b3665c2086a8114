//! What is said on a connection: a plain state machine fed with frames, which leaves the bytes to be written behind.
//! One AMQP session with up to four links: two to `$cbs`, one for events, one for commands. Numbers of sections are
//! those of AMQP 1.0, part 2.
//!
//! How outcomes map: contract `amqp.md`, "Device links". Commands are asked for with rcv-settle-mode second, so that the
//! hub answers each settlement and says when the lock was lost. A hub that knows only mode first gives no answers; there
//! the echo of a flow that was sent after the settlement shows that it has it, and a lost lock goes unnoticed.

mod commands;
mod receiver;
mod sending;

use std::{collections::VecDeque, mem::take};

use bytes::BytesMut;
use commands::Commands;
use fe2o3_amqp_types::{
    definitions::{self, Fields, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{Accepted, Body, DeliveryState, Source, Target, TargetArchetype, message::DecodeIntoMessage},
    performatives::{Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Transfer},
    primitives::{Symbol, Value},
};
use receiver::{Partial, ReceiverLink};
use sending::{SenderLink, Sent, Waiting};
use serde_amqp::read::SliceReader;

use super::{
    cbs, door, fault,
    frame::{self, Frame, HEADER, MAX_FRAME, MIN_MAX_FRAME, code, violation},
};
use crate::{
    Error, ErrorKind, Result,
    transport::{Incoming, identity::AGENT, socket::unreachable},
    wire::amqp::{self, AmqpMessage},
};

/// Transfers the server may send before we tell it that there is room for more.
const INCOMING_WINDOW: u32 = 2_048;
/// Answers of `$cbs` that may be on the way.
const TOKEN_CREDIT: u32 = 8;

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
    words: u64,
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
        out.extend_from_slice(&door::AMQP_HEADER);
        Self {
            terms,
            phase: Phase::Header,
            out,
            max_frame: MIN_MAX_FRAME,
            server_idle: None,
            channel: 0,
            words: 0,
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

    /// How many frames came that say something, and not only that the server is there.
    pub(super) fn words(&self) -> u64 {
        self.words
    }

    /// Whether the server owes an answer: an outcome, or what became of a settlement.
    pub(super) fn is_waiting(&self) -> bool {
        let settling = self.commands.as_ref().is_some_and(Commands::is_waiting);
        self.is_up() && (!self.unsettled.is_empty() || settling)
    }

    /// Has the server say something that shows that it hears us (section 2.7.4, echo).
    pub(super) fn ask(&mut self) {
        self.send_flow(Some(EVENTS), true);
    }

    /// The hub's answer to the last token, once.
    pub(super) fn token_answer(&mut self) -> Option<Result<()>> {
        self.token_answer.take()
    }

    /// Takes what it can from the input; gives how many bytes that were. Zero when more are needed.
    pub(super) fn take(&mut self, input: &[u8], incoming: &mut Incoming) -> Result<usize> {
        if self.phase == Phase::Header {
            let Some(header) = input.first_chunk::<HEADER>() else { return Ok(0) };
            if *header != door::AMQP_HEADER {
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
        self.words += 1;
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
            code::DETACH => self.detached(frame::read(performative)?, incoming),
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
                commands.refused = refused;
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

    fn disposed(&mut self, disposition: Disposition, incoming: &mut Incoming) -> Result<()> {
        match disposition.role {
            Role::Receiver => self.sent_disposed(&disposition, incoming),
            Role::Sender => {
                self.commands_disposed(&disposition, incoming);
                Ok(())
            }
        }
    }

    /// The end of a link is the end of the connection, but for a link for commands that was never wanted.
    fn detached(&mut self, detach: Detach, incoming: &mut Incoming) -> Result<()> {
        let handle = Some(detach.handle.0);
        let doing = if handle == self.events.remote_handle {
            "the hub ended the link for messages"
        } else if handle == self.token_sender.remote_handle || handle == self.token_receiver.remote_handle {
            "the hub ended the link for tokens"
        } else {
            "the hub ended the link for commands"
        };
        let error = ended(doing, detach.error.as_ref());
        if self.commands.as_ref().is_some_and(|known| known.refused && known.link.remote_handle == handle) {
            self.commands = None;
            frame::put(&mut self.out, 0, &Detach { handle: COMMANDS.into(), closed: true, error: None });
            incoming.refused = Some(error);
            return Ok(());
        }
        Err(error)
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
