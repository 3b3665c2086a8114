//! Nodes that are asked and answer: requests come on one link, answers go on another.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use fe2o3_amqp_types::{
    definitions::{ReceiverSettleMode, SenderSettleMode},
    messaging::{
        Accepted, AmqpValue, ApplicationProperties, DeliveryState, Message, Properties, Target,
        TargetArchetype,
    },
    primitives::{OrderedMap, SimpleValue, Value},
};
use tokio::sync::mpsc;
use whimbrel::wire::amqp::AmqpMessage;

use super::{
    codec, condition,
    engine::Terms,
    link::{Attaching, Incoming, Outgoing},
};

/// A node of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Cbs,
    Management,
}

/// What a node answers.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// As in HTTP.
    pub(super) status: i32,
    pub(super) description: String,
    /// An AMQP value; `Null` for none.
    pub(super) body: Value,
}

/// Terms of the links of such nodes.
pub(super) fn terms() -> Terms {
    Terms { largest: REQUEST_BYTES, credit: REQUESTS, capabilities: Vec::new() }
}

/// The links of a connection that answers go out on.
#[derive(Debug, Default)]
pub(super) struct Replies {
    outlets: Mutex<Vec<Outlet>>,
}

#[derive(Debug)]
struct Outlet {
    node: Node,
    /// Where the client says answers come from; it may name it in `reply-to`.
    target: Option<String>,
    queue: mpsc::Sender<Vec<u8>>,
}

impl Replies {
    /// Accepts a link, and sends answers on it until it ends. Answers find it before the client hears that it is accepted, and so
    /// before it can ask: those to a link that nobody knows are lost.
    pub(super) fn serve(&self, node: Node, attaching: Attaching) -> impl Future<Output = ()> + Send + use<> {
        let (queue, waiting) = mpsc::channel(ANSWERS);
        let target = attaching.attach().target.as_deref().and_then(address_of);
        self.lock().push(Outlet { node, target, queue });
        answer(attaching.accept_outgoing(&terms()), waiting)
    }

    /// Sends an answer on the link whose target `reply_to` names, or else on the newest one of the node.
    async fn send(&self, node: Node, reply_to: Option<&str>, answer: Vec<u8>) {
        let queue = {
            let mut outlets = self.lock();
            outlets.retain(|outlet| !outlet.queue.is_closed());
            let named = outlets.iter().rev().find(|outlet| {
                outlet.node == node && reply_to.is_some() && outlet.target.as_deref() == reply_to
            });
            named
                .or_else(|| outlets.iter().rev().find(|outlet| outlet.node == node))
                .map(|outlet| outlet.queue.clone())
        };
        if let Some(queue) = queue {
            // In vain when the client has just given the link up.
            let _ = queue.send(answer).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outlet>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is waiting on a link until it ends.
async fn answer(mut link: Outgoing, mut waiting: mpsc::Receiver<Vec<u8>>) {
    let settled = link.attach().snd_settle_mode == SenderSettleMode::Settled;
    let second = link.attach().rcv_settle_mode == ReceiverSettleMode::Second;
    let mut number: u64 = 0;
    let mut next: Option<Vec<u8>> = None;
    loop {
        let ready = poll_fn(|cx| {
            loop {
                match link.poll_disposition(cx) {
                    Poll::Ready(Ok(done)) if second && !done.settled => {
                        link.settle(done.id, done.state.unwrap_or(DeliveryState::Accepted(Accepted {})));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            if next.is_none() {
                match waiting.poll_recv(cx) {
                    Poll::Ready(Some(answer)) => next = Some(answer),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
            link.poll_usable(cx).map(|usable| usable.ok().and_then(|_| next.take()))
        });
        let Some(answer) = ready.await else { return };
        number += 1;
        if link.send(&number.to_be_bytes(), 0, settled, &answer).is_err() {
            return;
        }
    }
}

/// Answers the requests that come on a link, one after the other, until it ends.
pub(super) async fn serve<F>(
    node: Node,
    mut link: Incoming,
    replies: Arc<Replies>,
    mut answer: impl FnMut(AmqpMessage) -> F,
) where
    F: Future<Output = Answer>,
{
    while let Ok(delivery) = link.next().await {
        let request = codec::read_message(&delivery.payload).ok().filter(|_| !delivery.oversize);
        let state = match request {
            Some(mut request) => {
                let properties = request.properties.take().unwrap_or_default();
                let answered = answer(request).await;
                if let Ok(encoded) = encode(answered, &properties) {
                    replies.send(node, properties.reply_to.as_deref(), encoded).await;
                }
                DeliveryState::Accepted(Accepted {})
            }
            None => condition::rejected(condition::refusal(
                whimbrel::wire::refusal::Refusal::FORMAT_ERROR,
                "the request cannot be read",
            )),
        };
        if !delivery.settled {
            link.dispose(delivery.id, delivery.id, state);
        }
        link.replenish(1);
    }
}

fn encode(answer: Answer, request: &Properties) -> Result<Vec<u8>, serde_amqp::Error> {
    let mut outcome = OrderedMap::new();
    // Event Hubs programs read the one spelling, those of IoT Hub the other; both have dashes.
    outcome.insert("status-code".to_owned(), SimpleValue::Int(answer.status));
    outcome.insert("status-description".to_owned(), SimpleValue::String(answer.description));
    codec::encode_value(Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties {
            // As it came, type included.
            correlation_id: request.message_id.clone(),
            to: request.reply_to.clone(),
            ..Properties::default()
        }),
        application_properties: Some(ApplicationProperties(outcome)),
        body: AmqpValue(answer.body),
        footer: None,
    })
}

fn address_of(target: &TargetArchetype) -> Option<String> {
    match target {
        TargetArchetype::Target(Target { address, .. }) => address.clone(),
        #[allow(unreachable_patterns, reason = "a feature of the crate adds a kind")]
        _ => None,
    }
}

/// Largest request: a token and its properties.
const REQUEST_BYTES: usize = 64 * 1024;
/// Requests under way on a link.
const REQUESTS: u32 = 100;
/// Answers that wait for the client's credit.
const ANSWERS: usize = 16;
