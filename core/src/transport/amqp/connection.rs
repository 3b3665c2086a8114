//! One AMQP connection of a device: bytes in and out, keep-alive, renewal of the token.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep},
};

use super::{
    cbs::{ANSWER_LIMIT, look_again},
    frame,
    session::{Session, Terms},
};
use crate::{
    Error, Result,
    auth::{Renewal, TokenSource},
    delivery::Verdict,
    outbox::Queued,
    transport::{
        Answer, Connection, Handle, Incoming, Settlement,
        identity::chance,
        socket::{Stream, unreachable},
    },
};

/// More than this waiting to be written, and there is no room for more messages.
const ROOM: usize = 256 * 1024;
/// Most bytes read before what is in them is handed out.
const READ_SIZE: usize = 64 * 1024;
/// How long the goodbye may take.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// A connection to a hub by AMQP.
pub struct AmqpConnection {
    stream: Box<dyn Stream>,
    session: Session,
    tokens: Option<Tokens>,
    /// Bytes were written and not flushed.
    unflushed: bool,
    input: BytesMut,
    /// What came without the hub: refusals on this side, settlements that need no answer.
    own: Incoming,
    /// The caller was told that there is no room.
    was_full: bool,
    pulse: Pulse,
    /// Why the connection is over; told when what came in before has been handed out.
    failed: Option<Error>,
}

/// The tokens of one connection.
pub(super) struct Tokens {
    source: TokenSource,
    audience: String,
    put: u64,
    renewal: Option<Renewal>,
    /// A token was put and has no answer.
    asked: bool,
    /// When to look again: for the answer, or for the renewal.
    timer: Pin<Box<Sleep>>,
}

impl Tokens {
    pub(super) fn new(source: TokenSource, audience: String) -> Self {
        let timer = Box::pin(tokio::time::sleep(ANSWER_LIMIT));
        Self { source, audience, put: 0, renewal: None, asked: false, timer }
    }

    fn put(&mut self, session: &mut Session) -> Result<()> {
        let token = self.source.token(SystemTime::now(), chance()?);
        self.put += 1;
        session.put_token(format!("token-{}", self.put), &self.audience, &token.text);
        self.renewal = token.renewal;
        self.asked = true;
        self.timer.as_mut().reset(Instant::now() + ANSWER_LIMIT);
        Ok(())
    }

    fn answered(&mut self) {
        self.asked = false;
        if let Some(renewal) = self.renewal {
            self.timer.as_mut().reset(Instant::now() + look_again(renewal, SystemTime::now()));
        }
    }

    /// Ready when a token was put or none was answered in time.
    fn poll(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Poll<Result<()>> {
        loop {
            let renewal = match (self.asked, self.renewal) {
                (true, _) => None,
                (false, Some(renewal)) => Some(renewal),
                (false, None) => return Poll::Pending,
            };
            ready!(self.timer.as_mut().poll(cx));
            let Some(renewal) = renewal else {
                return Poll::Ready(Err(unreachable("the hub did not answer a token in time")));
            };
            let now = SystemTime::now();
            if renewal.is_due(now) {
                return Poll::Ready(self.put(session));
            }
            self.timer.as_mut().reset(Instant::now() + look_again(renewal, now));
        }
    }
}

/// Says something when the server wants to hear from us, and notices when the server has fallen silent. The server was
/// told to say something twice in each keep-alive time. That it says something does not show that it hears us: when it
/// owes an answer and says nothing of substance for half of that time, it is asked, and gone when that brings nothing
/// either.
struct Pulse {
    keep_alive: Duration,
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    said: Instant,
    /// How many words of the server there were, and when the last one was noticed.
    words: (u64, Instant),
    asked: Option<Instant>,
}

impl Pulse {
    fn new(keep_alive: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now));
        Self { keep_alive, timer, heard: now, said: now, words: (0, now), asked: None }
    }

    /// Whether the server has not answered what it was asked; asks it when it is time to.
    fn is_deaf(&mut self, session: &mut Session, now: Instant) -> bool {
        let half = self.keep_alive / 2;
        if session.words() != self.words.0 || !session.is_waiting() {
            self.words = (session.words(), now);
            self.asked = None;
            return false;
        }
        match self.asked {
            Some(asked) => asked + half <= now,
            None if self.words.1 + half <= now => {
                self.asked = Some(now);
                session.ask();
                false
            }
            None => false,
        }
    }
}

impl AmqpConnection {
    /// Opens a connection on a stream that is past SASL; ready when events can be published. The caller bounds the time.
    pub(super) async fn open(
        stream: Box<dyn Stream>,
        terms: Terms,
        tokens: Option<Tokens>,
        keep_alive: Duration,
    ) -> Result<Self> {
        let mut connection = Self {
            stream,
            session: Session::new(terms),
            tokens,
            unflushed: false,
            input: BytesMut::new(),
            own: Incoming::default(),
            was_full: false,
            pulse: Pulse::new(keep_alive),
            failed: None,
        };
        let mut nothing = Incoming::default();
        poll_fn(|cx| connection.poll(cx, &mut nothing, true)).await?;
        Ok(connection)
    }

    /// Ready when something came in, when there is room again, or, `opening`, when the connection is up.
    fn poll(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming, opening: bool) -> Poll<Result<()>> {
        let before = incoming.count();
        incoming.append(&mut self.own);
        loop {
            let mut blocked = false;
            if self.failed.is_none() {
                blocked = self.write(cx);
                // Also after a failed write: what the server sent before it hung up is worth having.
                self.read(cx, incoming, before);
            }
            let room = self.was_full && self.has_room();
            if incoming.count() > before || room || (opening && self.session.is_up()) {
                self.was_full &= !room;
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.failed.take() {
                self.failed = Some(unreachable("the connection is closed"));
                return Poll::Ready(Err(error));
            }
            // What was read may have asked for an answer, and so may a timer.
            if blocked || self.session.out().is_empty() {
                ready!(self.poll_timers(cx));
            }
        }
    }

    /// Writes as much as the stream takes; gives whether it took less than there is.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.session.out().is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.session.out()) {
                Poll::Ready(Ok(0)) => {
                    self.fail(unreachable("the server takes no more bytes"));
                    return false;
                }
                Poll::Ready(Ok(count)) => {
                    self.session.out().advance(count);
                    self.unflushed = true;
                    self.pulse.said = Instant::now();
                }
                Poll::Ready(Err(error)) => {
                    self.fail(unreachable("the connection was lost").caused_by(error));
                    return false;
                }
                Poll::Pending => return true,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.fail(unreachable("the connection was lost").caused_by(error)),
                Poll::Pending => {}
            }
        }
        false
    }

    /// Reads what is there and takes the frames out of it.
    fn read(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming, before: usize) {
        loop {
            self.input.reserve(READ_SIZE);
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return self.fail(unreachable("the server closed the connection")),
                Poll::Ready(Ok(_)) => {
                    self.pulse.heard = Instant::now();
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
            if incoming.count() > before {
                return;
            }
        }
    }

    fn take_frames(&mut self, incoming: &mut Incoming) -> Result<()> {
        loop {
            let taken = self.session.take(&self.input, incoming)?;
            if taken == 0 {
                return Ok(());
            }
            self.input.advance(taken);
            if let Some(answer) = self.session.token_answer() {
                answer?;
                if let Some(tokens) = &mut self.tokens {
                    tokens.answered();
                }
            }
            if self.session.wants_token()
                && let Some(tokens) = &mut self.tokens
            {
                tokens.put(&mut self.session)?;
            }
        }
    }

    /// Ready when something is to be written or the connection is over.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tokens) = &mut self.tokens
            && let Poll::Ready(result) = tokens.poll(cx, &mut self.session)
        {
            if let Err(error) = result {
                self.fail(error);
            }
            return Poll::Ready(());
        }
        loop {
            ready!(self.pulse.timer.as_mut().poll(cx));
            let pulse = &mut self.pulse;
            let now = Instant::now();
            let silent_at = pulse.heard + pulse.keep_alive;
            if silent_at <= now {
                self.fail(unreachable("the server has fallen silent"));
                return Poll::Ready(());
            }
            let written = self.session.out().len();
            if pulse.is_deaf(&mut self.session, now) {
                self.fail(unreachable("the server does not hear us"));
                return Poll::Ready(());
            }
            let asked = self.session.out().len() > written;
            // Half of what it allows, so that it is not missed by a hair (section 2.4.5).
            let wanted =
                self.session.server_idle().map(|millis| Duration::from_millis(u64::from(millis)) / 2);
            let speak_at = wanted.map(|wanted| pulse.said + wanted);
            if asked {
                return Poll::Ready(());
            }
            if speak_at.is_some_and(|at| at <= now) {
                pulse.said = now;
                if self.session.out().is_empty() {
                    frame::put_empty(self.session.out());
                    return Poll::Ready(());
                }
                continue;
            }
            // What else there is to look at changes meanwhile.
            let next = speak_at.map_or(silent_at, |at| at.min(silent_at)).min(now + pulse.keep_alive / 8);
            pulse.timer.as_mut().reset(next);
        }
    }

    /// Keeps the first reason.
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
        self.session.out().clear();
    }
}

impl Connection for AmqpConnection {
    fn publish(&mut self, messages: &[Queued]) {
        for queued in messages {
            if let Err(reason) = self.session.publish(queued) {
                let (lane, sequence) = (queued.lane, queued.sequence);
                let verdict = Verdict::Refused { retryable: false, reason };
                self.own.answers.push(Answer { lane, sequence, verdict });
            }
        }
        self.was_full = !self.has_room();
    }

    fn has_room(&self) -> bool {
        self.session.backlog() < ROOM
    }

    fn receive_commands(&mut self, window: u16) {
        self.session.receive_commands(window);
    }

    fn settle(&mut self, settlements: &[(Handle, Settlement)]) {
        for (handle, settlement) in settlements {
            self.session.settle(*handle, *settlement, &mut self.own.settled);
        }
    }

    async fn drive(&mut self, incoming: &mut Incoming) -> Result<()> {
        poll_fn(|cx| self.poll(cx, incoming, false)).await
    }

    async fn finish(mut self) {
        if self.failed.is_some() {
            return;
        }
        self.session.close();
        let goodbye = async {
            self.stream.write_all(self.session.out()).await?;
            self.stream.shutdown().await?;
            // Closed with something unread, a socket takes back what the server has not read either.
            while self.stream.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            std::io::Result::Ok(())
        };
        // Either it goes through or the server finds out by itself.
        let _ = tokio::time::timeout(FINISH_LIMIT, goodbye).await;
    }
}

impl std::fmt::Debug for AmqpConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpConnection").finish_non_exhaustive()
    }
}
