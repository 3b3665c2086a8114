//! Makes changes of queues durable, in the order in which they were decided: one task that hands everything that is ready
//! to the store at once, and then tells.

use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use whimbrel::{Error, ErrorKind, Result, wire::feedback::CommandOutcome};

use super::{
    CommandState, CommandStatus, Inner, Sent,
    queue::{Change, Step},
    slot::{Reply, Slot, over},
};
use crate::store::{CommandChange, CommandChanged, CommandRow, NewCommand, Store};

/// Changes in one step of the store.
const GROUP: usize = 1_024;

/// A change on its way.
pub(super) enum Write {
    /// Somebody sends.
    Enqueue {
        command: NewCommand,
        reply: oneshot::Sender<Result<Sent>>,
        /// Its part of what may be on its way at once.
        room: OwnedSemaphorePermit,
    },
    /// A queue in memory wants something to be durable.
    Step { slot: Arc<Slot>, step: Step, reply: Option<Reply> },
    /// What was handed in before is still done.
    Stop,
}

/// Runs until told to stop, or until everybody who could hand something in is gone.
pub(super) async fn run(
    store: Arc<dyn Store>,
    inner: Weak<Inner>,
    mut waiting: mpsc::UnboundedReceiver<Write>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        if group.iter().any(|write| matches!(write, Write::Stop)) {
            waiting.close();
            group.retain(|write| !matches!(write, Write::Stop));
        }
        if group.is_empty() {
            continue;
        }
        let changes = group.iter().filter_map(change).collect();
        let outcome = store.change_commands(changes).await;
        // Nobody is left to be told when the queues are gone, except those who wait.
        let inner = inner.upgrade();
        match outcome {
            Ok(changed) => {
                for (write, changed) in group.drain(..).zip(changed) {
                    done(inner.as_ref(), write, changed);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "commands could not be stored");
                for write in group.drain(..) {
                    done(inner.as_ref(), write, Err(copy(&error)));
                }
            }
        }
    }
}

fn change(write: &Write) -> Option<CommandChange> {
    Some(match write {
        Write::Enqueue { command, .. } => CommandChange::Enqueue(command.clone()),
        Write::Step { step: Step { sequence, change }, .. } => match *change {
            Change::Count(delivery_count) => CommandChange::Count { sequence: *sequence, delivery_count },
            Change::End(outcome, at) => CommandChange::End { sequence: *sequence, outcome, at },
        },
        Write::Stop => return None,
    })
}

fn done(inner: Option<&Arc<Inner>>, write: Write, changed: Result<CommandChanged>) {
    match write {
        Write::Enqueue { command, reply, room } => {
            let sent = changed.and_then(|changed| match changed {
                CommandChanged::Enqueued { sequence, generation } => {
                    if let Some(inner) = inner {
                        enqueued(inner, command, sequence, &generation);
                    }
                    Ok(Sent { sequence })
                }
                _ => Err(Error::new(ErrorKind::Internal, "commands.send", "the store did something else")),
            });
            drop(room);
            // Nobody may be waiting any more; the command is in.
            let _ = reply.send(sent);
        }
        Write::Step { slot, step, reply } => {
            let answer = stepped(inner, &slot, step, changed);
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        }
        Write::Stop => {}
    }
}

fn enqueued(inner: &Arc<Inner>, command: NewCommand, sequence: u64, generation: &str) {
    if command.expires_at <= inner.clock.now().wall {
        inner.look_for_expired();
    }
    let row = CommandRow {
        sequence,
        enqueued_at: command.enqueued_at,
        expires_at: command.expires_at,
        delivery_count: 0,
        record: command.record,
    };
    inner.arrived(&command.device, generation, row);
}

fn stepped(
    inner: Option<&Arc<Inner>>,
    slot: &Arc<Slot>,
    step: Step,
    changed: Result<CommandChanged>,
) -> Result<()> {
    let (answer, ended) = match changed {
        Ok(CommandChanged::Missing) => (Err(over(ErrorKind::LockLost, &slot.device)), None),
        Ok(CommandChanged::Ended(ended)) => (Ok(()), Some(ended)),
        Ok(_) => (Ok(()), None),
        Err(error) => (Err(error), None),
    };
    let Some(inner) = inner else { return answer };
    inner.with(slot, |queue, now, _| match &answer {
        Ok(()) => queue.confirmed(step),
        Err(error) if error.kind() == ErrorKind::LockLost => queue.missing(step.sequence),
        Err(_) => queue.undone(step, now, now.monotonic + super::PATIENCE),
    });
    if let (Some(ended), Change::End(outcome, at)) = (ended, step.change) {
        if ended.feedback {
            inner.feedback.written();
        }
        tell(inner, step.sequence, outcome, at, ended);
    }
    answer
}

fn tell(
    inner: &Inner,
    sequence: u64,
    outcome: CommandOutcome,
    at: std::time::SystemTime,
    ended: crate::store::EndedCommand,
) {
    if inner.outcomes.receiver_count() == 0 {
        return;
    }
    // Fails when nobody listens any more.
    let _ = inner.outcomes.send(CommandStatus {
        device: ended.device,
        generation: ended.generation,
        sequence,
        message_id: ended.message_id,
        state: CommandState::Ended { outcome, at },
    });
}

/// The same error for each who has to hear it.
pub(super) fn copy(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.operation(), error.message().to_owned());
    error.details().iter().fold(same, |same, (name, value)| same.with(name, value))
}
