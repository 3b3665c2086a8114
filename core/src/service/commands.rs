//! Sends commands over one link, and hears how they ended over another one beside it.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use fe2o3_amqp::{
    Receiver, Sendable, Sender,
    link::{SendError, receiver::CreditMode},
    session::SessionHandle,
};
use fe2o3_amqp_types::{
    messaging::{Body, Outcome, Source, Target},
    primitives::{SimpleValue, Value},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use reqwest::Method;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    amqp::Conduit,
    feedback,
    outcomes::{End, Key, Outcomes},
    random_id,
    retry::Retries,
    stop::Stopped,
    web::{Call, Web},
};
use crate::{
    Error, ErrorKind, Message, Result,
    delivery::Backoff,
    transport::amqp::{Fault, condition, told},
    wire::{
        amqp::{self, AmqpMessage, COMMANDS, OUTCOMES},
        feedback::{CommandOutcome, FeedbackWanted},
        percent,
    },
};

/// A command to be sent, and whoever waits for the hub to have it.
pub(super) struct Order {
    pub(super) key: Key,
    /// With its id, its address and its expiry time.
    pub(super) message: Message,
    pub(super) feedback: FeedbackWanted,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

/// What the task works with.
pub(super) struct Desk {
    pub(super) conduit: Arc<Conduit>,
    pub(super) web: Arc<Web>,
    pub(super) outcomes: Outcomes,
    pub(super) backoff: Backoff,
    /// Readers of feedback this client has open.
    pub(super) readers: watch::Receiver<usize>,
}

/// How the hub tells outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// Ours: pushed to everybody who listens, and on query by message id.
    Pushed,
    /// Azure's: only by feedback, and only where it was asked for.
    Feedback,
}

struct Links {
    sender: Sender,
    telling: Telling,
    outcomes: Option<Receiver>,
    /// Ends the links when it is dropped.
    _session: SessionHandle<()>,
}

/// Commands that were not answered yet, in the order they came.
#[derive(Default)]
struct Unanswered {
    next: u64,
    orders: BTreeMap<u64, Order>,
}

impl Desk {
    /// Works until the client is closed, or gone and everything is answered.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Order>, stopped: Stopped) {
        let mut unanswered = Unanswered::default();
        tokio::select! {
            () = stopped.wait() => {}
            () = self.work(&mut queue, &mut unanswered) => {}
        }
        queue.close();
        while let Ok(order) = queue.try_recv() {
            let _ = order.answer.send(Err(closed()));
        }
        for (_, order) in unanswered.orders {
            let _ = order.answer.send(Err(closed()));
        }
        self.conduit.close().await;
    }

    async fn work(&self, queue: &mut mpsc::Receiver<Order>, unanswered: &mut Unanswered) {
        let mut retries = Retries::new(self.backoff);
        loop {
            unanswered.forget_given_up();
            if unanswered.orders.is_empty() && !self.outcomes.are_wanted() {
                // Nobody needs a connection.
                tokio::select! {
                    order = queue.recv() => match order {
                        Some(order) => drop(unanswered.add(order)),
                        None => return,
                    },
                    () = self.outcomes.interest() => {}
                }
            }
            let begun = Instant::now();
            let mut links = match self.attach().await {
                Ok(links) => links,
                Err(error) => {
                    tracing::info!(%error, "commands cannot be sent for now");
                    let wait = retries.after(&error);
                    if Retries::is_worth_telling(&error) {
                        unanswered.fail(queue, &error);
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            if links.telling == Telling::Pushed {
                // What ended while nobody listened.
                self.outcomes.ask_all(Instant::now());
            }
            let ended = self.serve(&mut links, queue, unanswered).await;
            drop(links);
            let Some(error) = ended else { return };
            if Retries::is_worth_telling(&error) {
                unanswered.fail(queue, &error);
            }
            if begun.elapsed() > STEADY {
                retries.reset();
            }
            tracing::info!(%error, "the connection for commands ended");
            tokio::time::sleep(retries.after(&error)).await;
        }
    }

    /// Listens to outcomes first, so that none of a command that is sent afterwards is missed.
    async fn attach(&self) -> Result<Links> {
        let mut session = self.conduit.session().await?;
        let attach = async {
            let id = random_id(SEND)?;
            let listening = Receiver::builder()
                .name(format!("whimbrel-outcomes-{id}"))
                .source(Source::builder().address(OUTCOMES).build())
                .credit_mode(CreditMode::Auto(OUTCOMES_CREDIT))
                .attach(&mut session)
                .await
                .map_err(|error| refusal(error, LISTEN));
            let sender = Sender::builder()
                .name(format!("whimbrel-commands-{id}"))
                .source(Source::builder().address("whimbrel").build())
                .target(Target::builder().address(COMMANDS).build())
                .attach(&mut session)
                .await
                .map_err(|error| error.explained(SEND, LOST))?;
            // A hub may refuse a link by letting it in and closing it at once. By now, the second link having been
            // answered on the same session, that would be here.
            let listening =
                listening.and_then(|mut receiver| match receiver.recv::<Body<Value>>().now_or_never() {
                    Some(Err(error)) => Err(refusal(error, LISTEN)),
                    // An outcome already: of a command of somebody else, or of one that is asked about right after this.
                    Some(Ok(_)) | None => Ok(receiver),
                });
            Ok((sender, listening))
        };
        let attached = tokio::time::timeout(self.conduit.peer().timeout, attach).await;
        let (sender, listening) = attached.unwrap_or_else(|_| Err(late()))?;
        let (telling, outcomes) = match listening {
            Ok(receiver) => (Telling::Pushed, Some(receiver)),
            // The right to send commands is the right to hear of them; whoever has it and is refused is at a hub without
            // this address.
            Err((true, _)) => (Telling::Feedback, None),
            Err((false, error)) => return Err(error),
        };
        Ok(Links { sender, telling, outcomes, _session: session })
    }

    /// Sends and listens until the connection ends; `None` when the client is gone and everything is answered.
    async fn serve(
        &self,
        links: &mut Links,
        queue: &mut mpsc::Receiver<Order>,
        unanswered: &mut Unanswered,
    ) -> Option<Error> {
        let Links { sender, telling, outcomes, _session: _ } = links;
        let mut flight = Flight::new();
        let listen = async {
            match outcomes {
                Some(receiver) => self.listen(receiver).await,
                None => self.pump().await,
            }
        };
        let ended = {
            let send = self.send(sender, *telling, queue, unanswered, &mut flight);
            tokio::select! {
                ended = send => ended,
                error = listen => Some(error),
            }
        };
        // What is on its way may still be answered; the rest is sent again.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.last_answers(unanswered, &mut flight)).await;
        ended
    }

    /// Sends what is asked for, each as soon as there is credit, without waiting for the answers of those before it.
    async fn send(
        &self,
        sender: &mut Sender,
        telling: Telling,
        queue: &mut mpsc::Receiver<Order>,
        unanswered: &mut Unanswered,
        flight: &mut Flight,
    ) -> Option<Error> {
        // Those of a connection before this one, the oldest last.
        let mut again: Vec<u64> = unanswered.orders.keys().rev().copied().collect();
        loop {
            let number = match again.pop() {
                Some(number) => number,
                None => tokio::select! {
                    Some((number, answer)) = flight.next(), if !flight.is_empty() => {
                        if let Some(error) = self.answered(unanswered, number, answer) {
                            return Some(error);
                        }
                        continue;
                    }
                    order = queue.recv(), if flight.len() < IN_FLIGHT => match order {
                        Some(order) => unanswered.add(order),
                        // Nobody can send any more; those who did may still be waiting.
                        None => return self.last_answers(unanswered, flight).await,
                    },
                },
            };
            let Some(order) = unanswered.orders.get(&number) else { continue };
            if order.answer.is_closed() {
                unanswered.orders.remove(&number);
                continue;
            }
            let sendable = Sendable::builder().message(encode(order, telling)).build();
            let mut sending = pin!(sender.send_batchable(sendable));
            let sent = loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    Some((number, answer)) = flight.next(), if !flight.is_empty() => {
                        if let Some(error) = self.answered(unanswered, number, answer) {
                            return Some(error);
                        }
                    }
                }
            };
            match sent {
                Ok(delivery) => flight.push(delivery.map(move |answer| (number, answer)).boxed()),
                Err(error) => {
                    if let Some(error) = self.answered(unanswered, number, Err(error)) {
                        return Some(error);
                    }
                }
            }
        }
    }

    async fn last_answers(&self, unanswered: &mut Unanswered, flight: &mut Flight) -> Option<Error> {
        while let Some((number, answer)) = flight.next().await {
            if let Some(error) = self.answered(unanswered, number, answer) {
                return Some(error);
            }
        }
        None
    }

    /// Passes on what the hub said about a command; an error is the end of the link, and the command is kept.
    fn answered(&self, unanswered: &mut Unanswered, number: u64, answer: Answer) -> Option<Error> {
        let said = match answer {
            Ok(Outcome::Accepted(_)) => Ok(()),
            Ok(Outcome::Rejected(rejected)) => Err(match rejected.error {
                Some(said) => told(SEND, "the hub refused the command", &said),
                None => Error::new(ErrorKind::Rejected, SEND, "the hub refused the command without a reason"),
            }),
            Ok(_) => Err(Error::new(ErrorKind::Unreachable, SEND, "the hub gave the command back unread")),
            Err(SendError::MessageSizeExceeded(exceeded)) => {
                Err(Error::new(ErrorKind::PayloadTooLarge, SEND, "the command is over what the hub takes")
                    .with("limit", exceeded.max_size))
            }
            Err(error @ (SendError::LinkStateError(_) | SendError::Detached(_))) => {
                return Some(error.explained(SEND, LOST));
            }
            Err(error) => Err(Error::new(ErrorKind::Protocol, SEND, "the hub's answer cannot be understood")
                .caused_by(error)),
        };
        if let Some(order) = unanswered.orders.remove(&number) {
            if said.is_ok() {
                self.outcomes.stored(&order.key, Instant::now());
            }
            // The caller may have given up.
            let _ = order.answer.send(said);
        }
        None
    }

    /// Hears of outcomes, and asks about those that may have been missed, until the link ends.
    async fn listen(&self, receiver: &mut Receiver) -> Error {
        let mut asked = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let (due, next) = self.outcomes.due(now, ASKED_AT_ONCE - asked.len());
            asked.extend(due.into_iter().map(|key| self.ask(key)));
            let look_again = next.unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN);
            tokio::select! {
                received = receiver.recv::<Body<Value>>() => {
                    let delivery = match received {
                        Ok(delivery) => delivery,
                        // Also when some were missed, which the hub calls a conflict: they are asked about then.
                        Err(error) => return passing(error.explained(SEND, LISTEN)),
                    };
                    match feedback::read(receiver, delivery).await {
                        Ok(Some((records, _, info))) => {
                            feedback::tell(&records, &self.outcomes);
                            if receiver.accept(info).await.is_err() {
                                return late();
                            }
                        }
                        Ok(None) => {}
                        Err(error) => return error,
                    }
                }
                Some((key, end)) = asked.next(), if !asked.is_empty() => {
                    self.outcomes.answered(&key, end, Instant::now());
                }
                () = self.outcomes.interest() => {}
                () = tokio::time::sleep_until(look_again), if asked.len() < ASKED_AT_ONCE => {}
            }
        }
    }

    /// Asks the hub how a command ended.
    async fn ask(&self, key: Key) -> (Key, Option<End>) {
        let (device, id) = (percent::encoded(&key.device), percent::encoded(&key.message_id));
        let path = format!("/v1/devices/{device}/commands/{id}");
        let end = match self.web.read::<Status>(Call::new(SEND, Method::GET, &path)).await {
            Ok(status) => status.outcome.as_deref().and_then(CommandOutcome::from_word).map(End::Outcome),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(End::Unknown),
            Err(error) => {
                tracing::warn!(%error, "the hub could not be asked about a command");
                None
            }
        };
        (key, end)
    }

    /// Reads feedback to learn outcomes, while no reader of this client does, until the link ends.
    async fn pump(&self) -> Error {
        let mut readers = self.readers.clone();
        loop {
            if readers.wait_for(|readers| *readers == 0).await.is_err() {
                // The client is gone, and with it everybody who could open a reader.
                return std::future::pending().await;
            }
            let read = async {
                let mut session = self.conduit.session().await?;
                let mut receiver = feedback::attach(&mut session).await?;
                loop {
                    let delivery = receiver.recv::<Body<Value>>().await;
                    let delivery = delivery.map_err(|error| error.explained(SEND, LOST))?;
                    if let Some((records, _, info)) = feedback::read(&receiver, delivery).await? {
                        // Told, or kept for whoever asks later, before the hub forgets them.
                        feedback::tell(&records, &self.outcomes);
                        receiver.accept(info).await.map_err(|_| late())?;
                    }
                }
            };
            let mut readers = self.readers.clone();
            tokio::select! {
                read = read => {
                    let read: Result<std::convert::Infallible> = read;
                    match read {
                        Err(error) => return error,
                        Ok(never) => match never {},
                    }
                }
                Ok(_) = readers.wait_for(|readers| *readers > 0) => {}
            }
        }
    }
}

impl Unanswered {
    fn add(&mut self, order: Order) -> u64 {
        self.next += 1;
        self.orders.insert(self.next, order);
        self.next
    }

    /// Drops those whose callers have stopped waiting.
    fn forget_given_up(&mut self) {
        self.orders.retain(|_, order| !order.answer.is_closed());
    }

    /// Answers everything, also what waits in the queue, with an error that waiting does not heal.
    fn fail(&mut self, queue: &mut mpsc::Receiver<Order>, error: &Error) {
        while let Ok(order) = queue.try_recv() {
            self.add(order);
        }
        for (_, order) in std::mem::take(&mut self.orders) {
            let mut copy = Error::new(error.kind(), SEND, error.message().to_owned());
            for (name, value) in error.details() {
                copy = copy.with(name, value);
            }
            let _ = order.answer.send(Err(copy));
        }
    }
}

/// Whether the other side refused an address, and the error.
fn refusal(error: impl Fault, doing: &'static str) -> (bool, Error) {
    let refused = error.said().map(condition).is_some_and(|condition| {
        ["amqp:not-found", "amqp:not-allowed", "amqp:not-implemented", "amqp:unauthorized-access", ARGUMENT]
            .contains(&condition.as_str())
    });
    (refused, error.explained(SEND, doing))
}

/// An error of hearing outcomes, which says nothing about the commands that are being sent.
fn passing(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unauthorized | ErrorKind::Throttled => error,
        _ => Error::new(ErrorKind::Unreachable, SEND, LISTEN).caused_by(error),
    }
}

/// A command as it goes out.
fn encode(order: &Order, telling: Telling) -> AmqpMessage {
    let mut message = amqp::encode(&order.message);
    let wanted = match telling {
        Telling::Pushed => order.feedback,
        Telling::Feedback => FeedbackWanted::Full,
    };
    if wanted != FeedbackWanted::None {
        let properties = message.application_properties.get_or_insert_default();
        let word = SimpleValue::String(wanted.word().to_owned());
        properties.0.insert(FeedbackWanted::PROPERTY.to_owned(), word);
    }
    message
}

/// What the hub knows of a command, as far as it matters here.
#[derive(Deserialize)]
struct Status {
    /// The word of its outcome, once it has one.
    outcome: Option<String>,
}

type Answer = std::result::Result<Outcome, SendError>;
type Flight = FuturesUnordered<BoxFuture<'static, (u64, Answer)>>;

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, SEND, "the client was closed")
}

fn late() -> Error {
    Error::new(ErrorKind::Unreachable, SEND, "the hub did not answer in time")
}

pub(super) const SEND: &str = "service.send";
const LOST: &str = "commands cannot be sent";
const LISTEN: &str = "outcomes cannot be heard";
const ARGUMENT: &str = "com.microsoft:argument-error";
/// Commands sent and not answered, at most.
const IN_FLIGHT: usize = 1_000;
/// Outcome messages on their way, at most.
const OUTCOMES_CREDIT: u32 = 500;
/// Commands the hub is asked about at the same time, at most.
const ASKED_AT_ONCE: usize = 16;
/// How long the agenda is left alone at most.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long answers are waited for when only the other link has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// A connection that lasted so long is not a failure.
const STEADY: Duration = Duration::from_secs(5);
