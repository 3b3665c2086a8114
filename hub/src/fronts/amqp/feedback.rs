//! `/messages/serviceBound/feedback`: a service receives records of how commands ended, in batches it settles; and ours,
//! `/messages/whimbrel/outcomes`: every outcome as it happens, with nothing to settle.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::SystemTime,
};

use fe2o3_amqp_types::{
    definitions::SenderSettleMode,
    messaging::{Batch, Body, Data, DeliveryState, MessageAnnotations, Properties},
    performatives::Attach,
    primitives::{Binary, Symbol, Value},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use whimbrel::{
    ErrorKind,
    wire::{
        amqp::{self, AmqpMessage, annotation},
        feedback::CONTENT_TYPE,
    },
};

use super::{
    Front,
    attach::Permit,
    codec, condition,
    device_commands::{answer, settlement},
    engine::{Ended, Terms},
    link::Outgoing,
};
use crate::commands::{CommandState, Feedback, FeedbackBatch, LockToken, Patience, Settlement};

/// Largest number of outcomes in one message.
const OUTCOMES: usize = 256;

/// Whether the client wants feedback at once, in our own way.
pub(super) fn patience(attach: &Attach) -> Patience {
    let desired = attach.desired_capabilities.iter().flat_map(|desired| &desired.0);
    match desired.into_iter().any(|symbol| symbol.as_str() == amqp::AT_ONCE) {
        true => Patience::None,
        false => Patience::Contract,
    }
}

/// Terms of a feedback link.
pub(super) fn terms(patience: Patience) -> Terms {
    let at_once = (patience == Patience::None).then(|| Symbol::from(amqp::AT_ONCE));
    Terms { largest: 1024 * 1024, credit: 0, capabilities: at_once.into_iter().collect() }
}

/// A settlement on its way to the disk, and what the service waits for, if it does.
type Answer =
    Pin<Box<dyn Future<Output = (Option<(u32, Option<DeliveryState>)>, whimbrel::Result<()>)> + Send>>;

/// Sends feedback until the link ends; what is locked then goes back.
pub(super) async fn serve(front: Arc<Front>, mut link: Outgoing, patience: Patience, permit: Permit) {
    let settled = link.attach().snd_settle_mode == SenderSettleMode::Settled;
    let mut reader = front.commands.feedback(patience);
    let mut sent: HashMap<u32, LockToken> = HashMap::new();
    let mut answers: FuturesUnordered<Answer> = FuturesUnordered::new();
    loop {
        let batch = tokio::select! {
            biased;
            disposition = poll_fn(|cx| link.poll_disposition(cx)) => {
                match disposition {
                    Ok(said) => {
                        if let Some(lock) = sent.remove(&said.id) {
                            let durable = reader.settle(lock, settlement(said.state.as_ref()));
                            let waits = (!said.settled).then_some((said.id, said.state));
                            answers.push(Box::pin(async move { (waits, durable.await) }));
                        }
                    }
                    Err(Ended::Detached) => break,
                    Err(Ended::Stopping) => {
                        while let Some((waits, outcome)) = answers.next().await {
                            reply(&link, waits, &outcome);
                        }
                        break;
                    }
                }
                continue;
            }
            Some((waits, outcome)) = answers.next() => {
                reply(&link, waits, &outcome);
                continue;
            }
            batch = when_usable(&link, reader.next()) => batch,
        };
        match batch {
            Ok(batch) => {
                let Ok(payload) = encode(&batch.records, batch.enqueued_at, front.access.host_name()) else {
                    continue;
                };
                let FeedbackBatch { lock, .. } = batch;
                let Ok(number) = link.send(&lock.to_bytes_le(), 0, settled, &payload) else { break };
                if settled {
                    let durable = reader.settle(lock, Settlement::Complete);
                    answers.push(Box::pin(async move { (None, durable.await) }));
                } else {
                    sent.insert(number, lock);
                }
            }
            Err(error) if error.kind() == ErrorKind::Closed => break,
            Err(error) => {
                link.detach(condition::of(&error));
                break;
            }
        }
    }
    drop(permit);
}

/// Sends every outcome from now on, until the link ends. A client that is too slow is detached: it has missed some.
pub(super) async fn serve_outcomes(front: Arc<Front>, mut link: Outgoing, permit: Permit) {
    let settled = link.attach().snd_settle_mode != SenderSettleMode::Unsettled;
    let mut reader = front.commands.outcomes();
    let mut statuses = Vec::new();
    let mut number: u64 = 0;
    loop {
        let next = tokio::select! {
            biased;
            disposition = poll_fn(|cx| link.poll_disposition(cx)) => {
                match disposition {
                    Ok(said) if !said.settled => link.settle(said.id, answer(said.state, &Ok(()))),
                    Ok(_) => {}
                    Err(_) => break,
                }
                continue;
            }
            next = when_usable(&link, reader.next(OUTCOMES, &mut statuses)) => next,
        };
        if let Err(error) = next {
            if error.kind() != ErrorKind::Closed {
                link.detach(condition::of(&error));
            }
            break;
        }
        let records: Vec<_> = statuses
            .drain(..)
            .filter_map(|status| {
                let CommandState::Ended { outcome, at } = status.state else { return None };
                let id = status.message_id.unwrap_or_default();
                Some(Feedback::new(id, at, outcome, &*status.device, &*status.generation))
            })
            .collect();
        let Ok(payload) = encode(&records, SystemTime::now(), front.access.host_name()) else { continue };
        number += 1;
        if link.send(&number.to_be_bytes(), 0, settled, &payload).is_err() {
            break;
        }
    }
    drop(permit);
}

/// Holds a link on which nothing ever comes: notifications of files, which this hub does not take.
pub(super) async fn serve_nothing(link: Outgoing, permit: Permit) {
    poll_fn(|cx| {
        if link.wants_drained() {
            link.drained();
        }
        loop {
            match ready!(link.poll_disposition(cx)) {
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
    drop(permit);
}

/// The next thing to send, looked for only while there is credit.
async fn when_usable<T>(
    link: &Outgoing,
    next: impl Future<Output = whimbrel::Result<T>>,
) -> whimbrel::Result<T> {
    let mut next = pin!(next);
    poll_fn(|cx| {
        // When the link is over, the other branch hears of it.
        if !matches!(ready!(link.poll_usable(cx)), Ok(1..)) {
            return Poll::Pending;
        }
        let polled = next.as_mut().poll(cx);
        if polled.is_pending() && link.wants_drained() {
            link.drained();
        }
        polled
    })
    .await
}

fn reply(link: &Outgoing, waits: Option<(u32, Option<DeliveryState>)>, outcome: &whimbrel::Result<()>) {
    if let Some((number, said)) = waits {
        link.settle(number, answer(said, outcome));
    }
}

/// A message of records: content type, user id and time of arrival are those readers insist on.
fn encode(records: &[Feedback], at: SystemTime, host: &str) -> Result<Vec<u8>, serde_amqp::Error> {
    let body = serde_json::to_vec(records).map_err(|error| serde_amqp::Error::Message(error.to_string()))?;
    let name = host.split('.').next().unwrap_or(host);
    let mut annotations = MessageAnnotations::default();
    amqp::annotate(&mut annotations.0, annotation::ENQUEUED_AT, Value::Timestamp(amqp::timestamp(at)));
    let message = AmqpMessage {
        header: None,
        delivery_annotations: None,
        message_annotations: Some(annotations),
        properties: Some(Properties {
            user_id: Some(Binary::from(name.as_bytes().to_vec())),
            content_type: Some(Symbol::from(CONTENT_TYPE)),
            ..Properties::default()
        }),
        application_properties: None,
        body: Body::Data(Batch::new(vec![Data(Binary::from(body))])),
        footer: None,
    };
    codec::encode_message(&message)
}
