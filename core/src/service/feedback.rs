//! Feedback: the hub's records of how commands ended, taken from its queue.

use std::{sync::Arc, time::SystemTime};

use fe2o3_amqp::{
    Delivery, Receiver,
    link::{delivery::DeliveryInfo, receiver::CreditMode},
    session::SessionHandle,
};
use fe2o3_amqp_types::{
    messaging::{Body, Source},
    primitives::{Symbol, Value},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    amqp::Conduit,
    outcomes::{Key, Outcomes},
    random_id,
    retry::Retries,
    stop::{Stop, Stopped, Task},
};
use crate::{
    Error, ErrorKind, Lane, Result,
    delivery::Backoff,
    transport::{Settlement, amqp::Fault},
    wire::{
        amqp::{self, AT_ONCE, AmqpMessage, FEEDBACK, annotation},
        feedback::Feedback,
    },
};

/// Takes feedback from the hub's queue, a batch at a time; made by
/// [`ServiceClient::feedback`](super::ServiceClient::feedback). Reconnects by itself.
///
/// The queue is one for the hub: of several readers, in whatever process, each gets a part of it.
#[derive(Debug)]
pub struct FeedbackReader {
    batches: mpsc::Receiver<Result<FeedbackBatch>>,
    task: Task,
    _counted: Counted,
}

/// Counts the readers of a client while they live: against a hub that tells outcomes by feedback only, they take over
/// from the client's own reading.
#[derive(Debug)]
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(readers: &watch::Sender<usize>) -> Self {
        readers.send_modify(|count| *count += 1);
        Self(readers.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Some feedback records, locked for this reader. To be settled before the lock ends, 60 s on a hub with default settings;
/// dropping it abandons it.
#[derive(Debug)]
pub struct FeedbackBatch {
    records: Vec<Feedback>,
    enqueued_at: Option<SystemTime>,
    settling: Option<Settling>,
}

#[derive(Debug)]
struct Settling {
    /// On which link, counted.
    link: u64,
    delivery: DeliveryInfo,
    settlements: mpsc::UnboundedSender<Order>,
}

struct Order {
    link: u64,
    delivery: DeliveryInfo,
    settlement: Settlement,
    answer: Option<oneshot::Sender<Result<()>>>,
}

impl FeedbackReader {
    pub(super) fn start(
        conduit: Arc<Conduit>,
        outcomes: Outcomes,
        backoff: Backoff,
        readers: &watch::Sender<usize>,
        stop: &Stop,
    ) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let task =
            stop.spawn(|stopped| async move { run(&conduit, &outcomes, backoff, &sender, stopped).await });
        Self { batches, task, _counted: Counted::new(readers) }
    }

    /// The next batch; waits for it. `None` after the client was closed. Cancelling loses nothing.
    ///
    /// # Errors
    /// What will not pass by itself, such as `Unauthorized`; the reader goes on trying, so the next call may succeed.
    pub async fn next(&mut self) -> Result<Option<FeedbackBatch>> {
        self.batches.recv().await.transpose()
    }

    /// Stops reading. Batches that were not settled go back to the queue.
    pub async fn close(self) {
        drop(self.batches);
        self.task.end().await;
    }
}

impl FeedbackBatch {
    /// The records, oldest first.
    pub fn records(&self) -> &[Feedback] {
        &self.records
    }

    /// When the newest record was made, by the hub's clock.
    pub fn enqueued_at(&self) -> Option<SystemTime> {
        self.enqueued_at
    }

    /// Removes the records from the queue. When the connection is lost just then they may come once more: records are
    /// delivered at least once.
    ///
    /// # Errors
    /// `LockLost` when the connection it came on has ended; the hub delivers the records again.
    pub async fn complete(self) -> Result<()> {
        self.settle(Settlement::Complete).await
    }

    /// Gives the records back; the hub delivers them again, a limited number of times.
    ///
    /// # Errors
    /// As [`FeedbackBatch::complete`].
    pub async fn abandon(self) -> Result<()> {
        self.settle(Settlement::Abandon).await
    }

    async fn settle(mut self, settlement: Settlement) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        if let Some(Settling { link, delivery, settlements }) = self.settling.take() {
            let _ = settlements.send(Order { link, delivery, settlement, answer: Some(answer) });
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Drop for FeedbackBatch {
    fn drop(&mut self) {
        if let Some(Settling { link, delivery, settlements }) = self.settling.take() {
            let _ = settlements.send(Order { link, delivery, settlement: Settlement::Abandon, answer: None });
        }
    }
}

async fn run(
    conduit: &Conduit,
    outcomes: &Outcomes,
    backoff: Backoff,
    batches: &mpsc::Sender<Result<FeedbackBatch>>,
    stopped: Stopped,
) {
    let mut retries = Retries::new(backoff);
    let (settlements, mut orders) = mpsc::unbounded_channel();
    let mut link = 0;
    loop {
        link += 1;
        let read = async {
            let mut session = conduit.session().await?;
            let mut receiver = attach(&mut session).await?;
            retries.reset();
            serve(&mut receiver, link, outcomes, batches, &settlements, &mut orders).await
        };
        let error = tokio::select! {
            () = stopped.wait() => return,
            () = batches.closed() => return,
            read = read => match read {
                Ok(()) => return,
                Err(error) => error,
            },
        };
        tracing::info!(%error, "feedback cannot be read for now");
        let wait = retries.after(&error);
        if Retries::is_worth_telling(&error) && batches.send(Err(error)).await.is_err() {
            return;
        }
        tokio::select! {
            () = stopped.wait() => return,
            () = batches.closed() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A link to the feedback queue.
pub(super) async fn attach(session: &mut SessionHandle<()>) -> Result<Receiver> {
    Receiver::builder()
        .name(format!("whimbrel-feedback-{}", random_id(OPERATION)?))
        .source(Source::builder().address(FEEDBACK).build())
        .add_desired_capabilities(Symbol::from(AT_ONCE))
        .credit_mode(CreditMode::Auto(CREDIT))
        .attach(session)
        .await
        .map_err(|error| error.explained(OPERATION, LOST))
}

async fn serve(
    receiver: &mut Receiver,
    link: u64,
    outcomes: &Outcomes,
    batches: &mpsc::Sender<Result<FeedbackBatch>>,
    settlements: &mpsc::UnboundedSender<Order>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> Result<()> {
    // Room in the channel first: settling goes on while the program is busy.
    let mut room = None;
    loop {
        tokio::select! {
            reserved = batches.reserve(), if room.is_none() => match reserved {
                Ok(permit) => room = Some(permit),
                Err(_) => return Ok(()),
            },
            Some(order) = orders.recv() => settle(receiver, link, order).await,
            received = receiver.recv::<Body<Value>>(), if room.is_some() => {
                let received = received.map_err(|error| error.explained(OPERATION, LOST))?;
                let Some((records, enqueued_at, delivery)) = read(receiver, received).await? else { continue };
                tell(&records, outcomes);
                let settling = Some(Settling { link, delivery, settlements: settlements.clone() });
                if let Some(permit) = room.take() {
                    permit.send(Ok(FeedbackBatch { records, enqueued_at, settling }));
                }
            }
        }
    }
}

async fn settle(receiver: &Receiver, link: u64, order: Order) {
    let Order { link: of, delivery, settlement, answer } = order;
    let settled = match (of == link, settlement) {
        (false, _) => Err(lost()),
        (true, Settlement::Complete) => receiver.accept(delivery).await.map_err(|_| lost()),
        (true, Settlement::Abandon) => receiver.release(delivery).await.map_err(|_| lost()),
        (true, Settlement::Reject) => receiver.reject(delivery, None).await.map_err(|_| lost()),
    };
    if let Some(answer) = answer {
        // Whoever settled may have stopped waiting.
        let _ = answer.send(settled);
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::LockLost, "feedback.settle", "the connection this feedback came on has ended")
}

/// A feedback message: its records, when it was made, and what to settle it by. One that cannot be read is rejected: it
/// would come again and again.
pub(super) async fn read(
    receiver: &Receiver,
    delivery: Delivery<Body<Value>>,
) -> Result<Option<(Vec<Feedback>, Option<SystemTime>, DeliveryInfo)>> {
    let (info, message) = delivery.into_parts();
    match records(message) {
        Ok((records, enqueued_at)) => Ok(Some((records, enqueued_at, info))),
        Err(error) => {
            tracing::warn!(%error, "a feedback message cannot be read");
            receiver.reject(info, None).await.map_err(|_| lost())?;
            Ok(None)
        }
    }
}

/// The records in a message, and when it was made.
pub(super) fn records(message: AmqpMessage) -> Result<(Vec<Feedback>, Option<SystemTime>)> {
    let decoded = amqp::decode(message, Lane::Telemetry)?;
    let records = serde_json::from_slice(decoded.message.body()).map_err(|error| {
        Error::new(ErrorKind::Protocol, OPERATION, "feedback is not a JSON array of records").caused_by(error)
    })?;
    let enqueued_at = amqp::annotation(&decoded.annotations, annotation::ENQUEUED_AT).and_then(amqp::time);
    Ok((records, enqueued_at))
}

/// Tells whoever follows the commands.
pub(super) fn tell(records: &[Feedback], outcomes: &Outcomes) {
    for record in records {
        let key = Key {
            device: record.device_id.as_str().into(),
            message_id: record.original_message_id.as_str().into(),
        };
        match record.outcome() {
            Ok(outcome) => outcomes.ended(key, outcome),
            Err(error) => tracing::warn!(%error, device = record.device_id, "feedback was passed over"),
        }
    }
}

const OPERATION: &str = "service.feedback";
const LOST: &str = "feedback cannot be read";
/// Batches that are on their way or not settled yet, at most.
pub(super) const CREDIT: u32 = 64;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{Message, service::outcomes::End, wire::feedback::CommandOutcome};

    #[tokio::test]
    async fn records_reach_whoever_follows_their_commands() {
        let outcomes = Outcomes::new(8);
        let followed = outcomes.follow(Key { device: "d".into(), message_id: "m".into() });
        let record = |id: &str, outcome| Feedback::new(id, SystemTime::UNIX_EPOCH, outcome, "d", "g");
        let mut unknown = record("m", CommandOutcome::Completed);
        unknown.status_code = "Vanished".into();
        let sent = [unknown, record("x", CommandOutcome::Expired), record("m", CommandOutcome::Rejected)];
        let mut message = amqp::encode(&Message::telemetry(serde_json::to_vec(&sent).unwrap()));
        let mut annotations = fe2o3_amqp_types::messaging::annotations::Annotations::new();
        amqp::annotate(&mut annotations, annotation::ENQUEUED_AT, amqp::timestamp(SystemTime::UNIX_EPOCH));
        message.message_annotations = Some(fe2o3_amqp_types::messaging::MessageAnnotations(annotations));
        let (read, enqueued_at) = records(message).unwrap();
        assert_eq!((read.as_slice(), enqueued_at), (sent.as_slice(), Some(SystemTime::UNIX_EPOCH)));
        tell(&read, &outcomes);
        assert_eq!(followed.end().now_or_never(), Some(End::Outcome(CommandOutcome::Rejected)));
        let error = records(amqp::encode(&Message::telemetry("{}"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
