//! From what somebody sends to what is stored.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;
use whimbrel::{
    Error, ErrorKind, Message, Result,
    wire::{feedback::FeedbackWanted, record},
};

use super::{Inner, Sent, receiver::closed, writer::Write};
use crate::store::NewCommand;

/// Kibibytes of commands that may wait for the disk; who comes later waits to hand his in.
pub(super) const ROOM: usize = 16 * 1024;

const OPERATION: &str = "commands.send";
/// Properties of less than this fit into a topic in any case.
const SMALL: usize = 16 * 1024;

impl Inner {
    /// Stores a command; `dead_letter` is what it is made from, and goes in the same step.
    pub(super) async fn send(
        &self,
        device: Arc<str>,
        message: Message,
        dead_letter: Option<u64>,
    ) -> Result<Sent> {
        let command = self.prepare(device, message, dead_letter)?;
        let room = u32::try_from(command.record.len() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| closed(OPERATION))?;
        self.check_open(OPERATION)?;
        let (reply, sent) = oneshot::channel();
        self.write(Write::Enqueue { command, reply, room });
        sent.await.map_err(|_| closed(OPERATION))?
    }

    fn prepare(
        &self,
        device: Arc<str>,
        mut message: Message,
        dead_letter: Option<u64>,
    ) -> Result<NewCommand> {
        message.validate_command()?;
        let feedback = match message.properties().get(FeedbackWanted::PROPERTY) {
            None => FeedbackWanted::None,
            Some(word) => {
                let wanted = FeedbackWanted::from_word(word).ok_or_else(|| {
                    let text = "iothub-ack is none, positive, negative or full";
                    Error::new(ErrorKind::InvalidArgument, OPERATION, text).with("part", "ack")
                })?;
                // Some clients know the lower case only.
                message = message.property(FeedbackWanted::PROPERTY, wanted.word());
                wanted
            }
        };
        let enqueued_at = to_millis(self.clock.now().wall);
        let expires_at = to_millis(self.expiry(&message, enqueued_at)?);
        let system = message.system_mut();
        system.expiry_time = Some(expires_at);
        system.to = Some(format!("/devices/{device}/messages/deviceBound"));
        let message_id = system.message_id.clone();
        if message.size() - message.body().len() > SMALL {
            // What was added must not make it unfit for a topic; it does not count for the size of the body.
            let head = Message::telemetry("").with_properties(message.properties().clone());
            head.with_system(message.system().clone()).validate_command()?;
        }
        let mut bytes = Vec::with_capacity(message.size() + 64);
        record::encode(&message, &mut bytes);
        Ok(NewCommand {
            device,
            message_id,
            feedback,
            enqueued_at,
            expires_at,
            record: bytes.into(),
            depth: self.options.depth,
            dead_letter,
        })
    }

    fn expiry(&self, message: &Message, now: SystemTime) -> Result<SystemTime> {
        let latest = now + self.options.longest_time_to_live;
        let own = message.system().expiry_time.or_else(|| {
            message.time_to_live().map(|time_to_live| now.checked_add(time_to_live).unwrap_or(latest + DAY))
        });
        let expires_at = own.unwrap_or(now + self.options.time_to_live);
        if expires_at > latest {
            let text = "the command would live too long";
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text)
                .with("part", "expiry")
                .with("limit", format!("{} s", self.options.longest_time_to_live.as_secs())));
        }
        Ok(expires_at)
    }
}

/// Times are stored so.
fn to_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(0))
}

const DAY: Duration = Duration::from_secs(24 * 3_600);
