//! PUBLISH as an event: the topic, and what of its properties becomes the message.

use bytes::Bytes;
use rmqtt_codec::{types::Publish, v5::PublishProperties};
use whimbrel::{
    Lane, Message,
    wire::{
        topic,
        v5::{self, Number},
    },
};

use crate::access::Admitted;

/// What is wrong with a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not a topic this device may publish to.
    Topic,
    /// A property is not as specified.
    Property(&'static str),
    /// Over the limit.
    TooLarge,
}

/// Reads a publication of `sender`: the message of at most `limit` bytes, with what the hub stamps on it, and its number
/// in its outbox. `numbered` says whether the client offered de-duplication.
pub(crate) fn read(
    sender: &Admitted,
    numbered: bool,
    limit: usize,
    publish: Publish,
) -> Result<(Message, Option<(Lane, u64)>), Fault> {
    let properties = publish.properties.as_ref();
    let (mut message, number) = message(sender, &publish.topic, properties, publish.payload)?;
    if message.size() > limit {
        return Err(Fault::TooLarge);
    }
    let number = number.filter(|_| numbered).map(|Number { lane, number }| (lane, number));
    if publish.retain {
        message = message.property("mqtt-retain", "true");
    }
    // A numbered message is the same one when it comes again; any other is stored again and says so.
    if publish.dup && number.is_none() {
        message = message.property("mqtt-dup", "true");
    }
    Ok((message, number))
}

/// Reads the will of `sender`, with what the hub stamps on it.
pub(crate) fn read_will(
    sender: &Admitted,
    limit: usize,
    topic: &str,
    properties: Option<&PublishProperties>,
    payload: Bytes,
) -> Result<Message, Fault> {
    // A copy: a will lives as long as its connection, and the packet's bytes hold a whole read buffer.
    let (message, _) = message(sender, topic, properties, Bytes::copy_from_slice(&payload))?;
    if message.size() > limit {
        return Err(Fault::TooLarge);
    }
    Ok(message.property("iothub-MessageType", "Will"))
}

fn message(
    sender: &Admitted,
    topic: &str,
    properties: Option<&PublishProperties>,
    payload: Bytes,
) -> Result<(Message, Option<Number>), Fault> {
    let user = || properties.iter().flat_map(|properties| &properties.user_properties);
    if let Some(properties) = properties
        && topic == v5::TELEMETRY
    {
        let user = user().map(|(name, value)| (&**name, &**value));
        let received = v5::message(properties.content_type.as_deref(), user, payload)
            .map_err(|_| Fault::Property("a user property is not in the specification or cannot be read"))?;
        return Ok((received.message, received.number));
    }
    let bag = topic::parse_d2c(topic, &sender.device, sender.module.as_deref()).map_err(|_| Fault::Topic)?;
    let number = match user().find(|(name, _)| &**name == v5::NUMBER) {
        Some((_, value)) => {
            Some(Number::parse(value).ok_or(Fault::Property("whimbrel-n is not a lane and a number"))?)
        }
        None => None,
    };
    let lane = number.map_or(Lane::Telemetry, |number| number.lane);
    Ok((bag.into_message(lane, payload), number))
}
