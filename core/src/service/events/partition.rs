//! Reads one partition, over lost connections, from where it was.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use fe2o3_amqp::{Receiver, link::receiver::CreditMode, session::SessionHandle};
use fe2o3_amqp_types::{
    definitions::{Fields, SenderSettleMode},
    messaging::{Body, Source, annotations::Annotations},
    primitives::{Symbol, Value},
};
use tokio::sync::mpsc;

use super::{Event, Handed, OPEN, position::Start, source::Log};
use crate::{
    Error, ErrorKind, Lane, Result,
    delivery::Backoff,
    service::{random_id, retry::Retries},
    transport::amqp::Fault,
    wire::amqp::{self, AmqpMessage, annotation},
};

/// What a partition brings.
#[expect(clippy::large_enum_variant, reason = "almost all of them are events")]
pub(super) enum Item {
    Event(Event),
    /// It does not go on by itself, though it goes on trying.
    Failed(Error),
}

/// What reading a partition takes.
pub(super) struct Reading {
    pub(super) log: Arc<Log>,
    pub(super) group: Arc<str>,
    pub(super) reader: Arc<str>,
    pub(super) partition: u32,
    /// Exclusive, in the name of this epoch.
    pub(super) epoch: Option<u64>,
    pub(super) prefetch: u32,
    pub(super) backoff: Backoff,
    pub(super) handed: Arc<Handed>,
}

/// Somebody else reads the partition now.
#[derive(Debug)]
pub(super) struct Stolen;

/// Whether the events of a partition are still this reader's to hand out.
#[derive(Debug)]
pub(super) struct Alive(AtomicBool);

impl Alive {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Reading {
    /// Reads from `start` until the partition is stolen or nobody listens any more.
    pub(super) async fn run(
        self,
        mut start: Start,
        out: mpsc::Sender<Item>,
    ) -> std::result::Result<(), Stolen> {
        let mut retries = Retries::new(self.backoff);
        loop {
            let error = match self.read(&mut start, &mut retries, &out).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.epoch.is_some() && error.kind() == ErrorKind::Conflict {
                return Err(Stolen);
            }
            tracing::info!(%error, partition = self.partition, "events cannot be read for now");
            let wait = retries.after(&error);
            if Retries::is_worth_telling(&error) && out.send(Item::Failed(error)).await.is_err() {
                return Ok(());
            }
            tokio::select! {
                () = out.closed() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads over one link.
    async fn read(&self, start: &mut Start, retries: &mut Retries, out: &mpsc::Sender<Item>) -> Result<()> {
        let mut session = self.log.conduit.session().await?;
        let attach = self.attach(&mut session, start);
        let attached = tokio::time::timeout(self.log.conduit.peer().timeout, attach).await;
        let late = |_| Err(Error::new(ErrorKind::Unreachable, OPEN, "the hub did not answer in time"));
        let mut receiver = attached.unwrap_or_else(late)?;
        loop {
            let received = tokio::select! {
                received = receiver.recv::<Body<Value>>() => received,
                () = out.closed() => return Ok(()),
            };
            let delivery = received.map_err(|error| error.explained(OPEN, LOST))?;
            retries.reset();
            let (info, message) = delivery.into_parts();
            let (sequence, item) = self.event(message)?;
            if start.wants(sequence) {
                if out.send(item).await.is_err() {
                    return Ok(());
                }
                *start = Start::After(sequence);
            }
            // Also gives credit for the next ones: what waits here is bounded by what the program takes.
            receiver.accept(info).await.map_err(|error| error.explained(OPEN, LOST))?;
        }
    }

    async fn attach(&self, session: &mut SessionHandle<()>, start: &Start) -> Result<Receiver> {
        let (entity, group, partition) = (&self.log.entity, &self.group, self.partition);
        let mut properties = Fields::new();
        properties
            .insert(Symbol::from("com.microsoft:receiver-name"), Value::String(self.reader.to_string()));
        if let Some(epoch) = self.epoch {
            let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
            properties.insert(Symbol::from("com.microsoft:epoch"), Value::Long(epoch));
        }
        let source = Source::builder()
            .address(format!("{entity}/ConsumerGroups/{group}/Partitions/{partition}"))
            .filter(start.filter())
            .build();
        Receiver::builder()
            .name(format!("whimbrel-{partition}-{}", random_id(OPEN)?))
            .source(source)
            // Settling tells the hub nothing: the position is the reader's.
            .sender_settle_mode(SenderSettleMode::Settled)
            .properties(properties)
            .credit_mode(CreditMode::Auto(self.prefetch))
            .attach(session)
            .await
            .map_err(|error| error.explained(OPEN, LOST))
    }

    /// An event as it is handed out; one that cannot be read is an error in its place.
    fn event(&self, message: AmqpMessage) -> Result<(u64, Item)> {
        let empty = Annotations::default();
        let annotations = message.message_annotations.as_ref().map_or(&empty, |annotations| &annotations.0);
        let sequence =
            amqp::annotation(annotations, annotation::SEQUENCE).and_then(amqp::number).ok_or_else(|| {
                Error::new(
                    ErrorKind::Protocol,
                    OPEN,
                    "an event has no sequence number [x-opt-sequence-number]",
                )
            })?;
        let item = match amqp::decode(message, Lane::Telemetry) {
            Ok(decoded) => {
                let text = |name| {
                    amqp::annotation(&decoded.annotations, name).and_then(amqp::text).map(str::to_owned)
                };
                let time = |name| amqp::annotation(&decoded.annotations, name).and_then(amqp::time);
                Item::Event(Event {
                    partition: self.partition,
                    sequence,
                    offset: text(annotation::OFFSET).unwrap_or_default(),
                    enqueued_at: time(annotation::LOGGED_AT)
                        .or_else(|| time(annotation::ENQUEUED_AT))
                        .unwrap_or(SystemTime::UNIX_EPOCH),
                    device: text(annotation::DEVICE).unwrap_or_default(),
                    module: text(annotation::MODULE),
                    generation: text(annotation::GENERATION),
                    auth_method: text(annotation::AUTH_METHOD),
                    source: text(annotation::SOURCE),
                    message: decoded.message,
                    handed: self.handed.clone(),
                })
            }
            Err(error) => Item::Failed(
                Error::new(ErrorKind::Protocol, OPEN, "an event cannot be read and is passed over")
                    .with("partition", self.partition)
                    .with("sequence", sequence)
                    .caused_by(error),
            ),
        };
        Ok((sequence, item))
    }
}

const LOST: &str = "events cannot be read";
