//! One MQTT connection: buffers, packet identifiers, keep-alive.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep},
};

use super::{
    HUNG_UP,
    commands::Commands,
    frame::{self, Frame, kind},
    slots::{LAST, Slots},
    v3, v5,
};
use crate::{
    Error, Result,
    delivery::Verdict,
    outbox::Queued,
    transport::{
        Answer, Connection, Greeting, Handle, Incoming, Settlement,
        socket::{Stream, unreachable},
    },
};

/// More than this waiting to be written, and there is no room for more messages.
const ROOM: usize = 256 * 1024;
/// Most bytes read before the answers in them are handed out.
const READ_SIZE: usize = 64 * 1024;
/// How long the goodbye may take.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// A connection to a hub by MQTT 3.1.1 or 5.
pub struct MqttConnection {
    stream: Box<dyn Stream>,
    codec: Codec,
    slots: Slots,
    commands: Commands,
    output: BytesMut,
    /// Bytes were written and not flushed.
    unflushed: bool,
    input: BytesMut,
    /// Refused on this side, without asking the hub.
    refused: Vec<Answer>,
    /// The caller was told that there is no room.
    was_full: bool,
    pulse: Pulse,
    /// Why the connection is over; told when what came in before has been handed out.
    failed: Option<Error>,
}

enum Codec {
    V3(v3::Codec),
    V5(v5::Codec),
}

/// The first packet of a connection, and what belongs to it.
pub(super) struct Hello {
    pub(super) packet: BytesMut,
    /// How long until the credentials have to be renewed, where they can be.
    pub(super) renew_in: Option<Duration>,
    /// How messages are written once we are in; on MQTT 5 that depends on the server's answer.
    pub(super) v3: Option<v3::Codec>,
    pub(super) commands: Commands,
}

/// Notices a silent connection: by half of the keep-alive time something must have come in, or the server is asked;
/// when by the next half nothing has, it is gone.
struct Pulse {
    half: Duration,
    timer: Pin<Box<Sleep>>,
    sent: bool,
    received: bool,
    asked: bool,
}

impl Pulse {
    fn new(keep_alive: Duration) -> Self {
        let half = keep_alive / 2;
        Self { half, timer: Box::pin(tokio::time::sleep(half)), sent: false, received: false, asked: false }
    }
}

impl MqttConnection {
    pub(super) async fn open(
        mut stream: Box<dyn Stream>,
        hello: Hello,
        window: usize,
        keep_alive: Duration,
    ) -> Result<(Self, Greeting)> {
        let lost = |error| unreachable("the connection broke during CONNECT").caused_by(error);
        stream.write_all(&hello.packet).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;

        let mut input = BytesMut::new();
        while frame::first(&input)?.is_none() {
            match stream.read_buf(&mut input).await {
                Ok(0) => return Err(unreachable(HUNG_UP)),
                Ok(_) => {}
                Err(error) if is_hang_up(&error) => return Err(unreachable(HUNG_UP).caused_by(error)),
                Err(error) => return Err(lost(error)),
            }
        }
        let Some(frame) = frame::first(&input)? else { return Err(unreachable(HUNG_UP)) };
        if frame.first != kind::CONNACK {
            return Err(frame::violation("the server's first packet was not CONNACK [MQTT-3.2.0-1]"));
        }
        // One identifier is kept for SUBSCRIBE.
        let (codec, receive_maximum, keep_alive) = match hello.v3 {
            Some(codec) => {
                v3::welcome(frame.body)?;
                (Codec::V3(codec), LAST, keep_alive)
            }
            None => {
                let welcome = v5::welcome(&frame)?;
                {
                    let receive_maximum = welcome.receive_maximum.min(LAST);
                    (Codec::V5(welcome.codec), receive_maximum, welcome.keep_alive.unwrap_or(keep_alive))
                }
            }
        };
        let consumed = frame.whole.len();
        input.advance(consumed);
        let connection = Self {
            stream,
            codec,
            slots: Slots::new(window.min(usize::from(receive_maximum))),
            commands: hello.commands,
            output: BytesMut::new(),
            unflushed: false,
            input,
            refused: Vec::new(),
            was_full: false,
            pulse: Pulse::new(keep_alive),
            failed: None,
        };
        let commands = connection.commands.support();
        Ok((connection, Greeting { receive_maximum, renew_in: hello.renew_in, commands }))
    }

    fn poll_drive(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) -> Poll<Result<()>> {
        let before = incoming.count();
        incoming.answers.append(&mut self.refused);
        self.commands.tell(incoming);
        loop {
            if self.failed.is_none() {
                self.write(cx);
                // Also after a failed write: what the server sent before it hung up is worth having.
                let unwritten = self.output.len();
                self.read(cx, incoming);
                // Some of what was read is answered at once, and nothing else may come to have that written.
                if self.output.len() > unwritten {
                    self.write(cx);
                }
            }
            if incoming.count() > before || (self.was_full && self.has_room()) {
                self.was_full = false;
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.failed.take() {
                self.failed = Some(unreachable("the connection is closed"));
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_pulse(cx));
        }
    }

    /// Writes as much as the stream takes.
    fn write(&mut self, cx: &mut Context<'_>) {
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return self.fail(unreachable("the server takes no more bytes")),
                Poll::Ready(Ok(count)) => {
                    self.output.advance(count);
                    self.unflushed = true;
                    self.pulse.sent = true;
                }
                Poll::Ready(Err(error)) => {
                    return self.fail(unreachable("the connection was lost").caused_by(error));
                }
                Poll::Pending => break,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.fail(unreachable("the connection was lost").caused_by(error)),
                Poll::Pending => {}
            }
        }
    }

    /// Reads what is there and takes the answers and commands out of it.
    fn read(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) {
        let before = incoming.count();
        loop {
            self.input.reserve(READ_SIZE);
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return self.fail(unreachable("the server closed the connection")),
                Poll::Ready(Ok(_)) => {
                    self.pulse.received = true;
                    if let Err(error) = self.take_frames(incoming) {
                        // Said by the server itself, so it is the better reason.
                        self.failed = Some(error);
                        return;
                    }
                }
                Poll::Ready(Err(error)) => {
                    return self.fail(unreachable("the connection was lost").caused_by(error));
                }
                Poll::Pending => return,
            }
            if incoming.count() > before && self.failed.is_none() {
                return;
            }
        }
    }

    fn take_frames(&mut self, incoming: &mut Incoming) -> Result<()> {
        let mut consumed = 0;
        let result = loop {
            match frame::first(self.input.get(consumed..).unwrap_or_default()) {
                Ok(Some(frame)) => {
                    consumed += frame.whole.len();
                    let Self { codec, slots, commands, output, .. } = self;
                    if let Err(error) = take_frame(codec, slots, commands, output, frame, incoming) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.input.advance(consumed);
        result
    }

    /// Ready when something is to be written or the server is found to be gone.
    fn poll_pulse(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.pulse.timer.as_mut().poll(cx));
            let pulse = &mut self.pulse;
            let (sent, received) = (pulse.sent, pulse.received);
            (pulse.sent, pulse.received) = (false, false);
            pulse.timer.as_mut().reset(Instant::now() + pulse.half);
            // On a slow link the answer waits behind what is being written; as long as that moves, somebody is there.
            if received || (sent && !self.output.is_empty()) {
                pulse.asked = false;
            }
            if pulse.asked {
                self.fail(unreachable("the server has fallen silent"));
                return Poll::Ready(());
            }
            if !received || !sent || self.commands.proof.is_wanted() {
                pulse.asked = true;
                self.output.extend_from_slice(&frame::PINGREQ);
                self.commands.proof.pinged();
                return Poll::Ready(());
            }
        }
    }

    /// Keeps the first reason.
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
        self.output.clear();
    }
}

/// Whether the other side ended the connection, in good order or not.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof
    )
}

fn take_frame(
    codec: &Codec,
    slots: &mut Slots,
    commands: &mut Commands,
    output: &mut BytesMut,
    frame: Frame<'_>,
    incoming: &mut Incoming,
) -> Result<()> {
    match frame.first {
        kind::PUBACK => {
            let (packet_id, verdict) = match codec {
                Codec::V3(_) => v3::answer(frame.body),
                Codec::V5(_) => v5::answer(frame.body),
            }
            .ok_or_else(|| frame::violation("the server sent a malformed PUBACK (section 3.4)"))?;
            let (lane, sequence) = slots.answer(packet_id).ok_or_else(|| {
                frame::violation("the server acknowledged what was not sent [MQTT-4.3.2-2]")
                    .with("packet id", packet_id)
            })?;
            incoming.answers.push(Answer { lane, sequence, verdict });
            commands.proof.answered(packet_id, &mut incoming.settled);
            Ok(())
        }
        kind::PINGRESP => {
            commands.proof.ponged(&mut incoming.settled);
            Ok(())
        }
        kind::SUBACK => commands.subscribed(frame.body, incoming),
        kind::DISCONNECT => match codec {
            Codec::V3(_) => Err(frame::violation("the server sent DISCONNECT (section 3.14)")),
            Codec::V5(_) => Err(v5::goodbye(frame)),
        },
        first if first & 0xf0 == kind::PUBLISH => commands.arrived(frame, output, incoming),
        first => {
            Err(frame::violation("the server sent a packet that only a client may send, or out of order")
                .with("packet type", first >> 4))
        }
    }
}

impl Connection for MqttConnection {
    fn publish(&mut self, messages: &[Queued]) {
        for queued in messages {
            let (lane, sequence) = (queued.lane, queued.sequence);
            let refuse =
                |reason| Answer { lane, sequence, verdict: Verdict::Refused { retryable: false, reason } };
            let Some(packet_id) = self.slots.take(lane, sequence) else {
                self.fail(Error::new(
                    crate::ErrorKind::Internal,
                    "device.send",
                    "more messages were sent than the window has room for",
                ));
                return;
            };
            let written = match &mut self.codec {
                Codec::V3(codec) => codec.publish(queued, packet_id, &mut self.output),
                Codec::V5(codec) => codec.publish(queued, packet_id, &mut self.output),
            };
            match written {
                Ok(()) => self.commands.proof.published(packet_id),
                Err(reason) => {
                    self.slots.answer(packet_id);
                    self.refused.push(refuse(reason));
                }
            }
        }
        self.was_full = !self.has_room();
    }

    fn has_room(&self) -> bool {
        self.output.len() < ROOM
    }

    fn receive_commands(&mut self, _: u16) {
        // The window went out with CONNECT.
        self.commands.subscribe(&mut self.output);
    }

    fn settle(&mut self, settlements: &[(Handle, Settlement)]) {
        for (handle, settlement) in settlements {
            self.commands.settle(*handle, *settlement, &mut self.output);
        }
    }

    async fn drive(&mut self, incoming: &mut Incoming) -> Result<()> {
        poll_fn(|cx| self.poll_drive(cx, incoming)).await
    }

    async fn finish(mut self) {
        if self.failed.is_some() {
            return;
        }
        self.output.extend_from_slice(&frame::GOODBYE);
        let goodbye = async {
            self.stream.write_all(&self.output).await?;
            self.stream.shutdown().await
        };
        // Either it goes through or the server finds out by itself.
        let _ = tokio::time::timeout(FINISH_LIMIT, goodbye).await;
    }
}

impl std::fmt::Debug for MqttConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttConnection").finish_non_exhaustive()
    }
}
