//! Commands: how many may come, what is held, and how settlements are answered.

use std::{collections::HashMap, mem::take};

use fe2o3_amqp_types::{
    definitions::{ReceiverSettleMode, Role},
    messaging::{Accepted, DeliveryState, Rejected, Released, Source, Target},
    performatives::{Disposition, Flow},
};

use super::{COMMANDS, Session, TOKENS_IN, receiver::ReceiverLink};
use crate::{
    Error, ErrorKind, Lane, Result,
    transport::{
        Arrived, Handle, Incoming, Settled, Settlement,
        amqp::{
            fault,
            frame::{self, violation},
        },
    },
    wire::amqp::{self, AmqpMessage, annotation},
};

pub(super) struct Commands {
    pub(super) link: ReceiverLink,
    /// Most commands that are unsettled at once.
    pub(super) window: u32,
    /// The hub answers settlements.
    pub(super) second: bool,
    /// The hub does not want the link; why comes with its end.
    pub(super) refused: bool,
    /// By delivery-id.
    pub(super) held: HashMap<u32, Held>,
    /// Settled in mode first, and the hub has not shown yet that it knows.
    pub(super) unproven: Vec<u32>,
    /// A flow with echo is out, and these were settled before it.
    pub(super) echoing: Option<Vec<u32>>,
}

/// A command we hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The program has it.
    Open,
    /// As [`Held::Open`], but the hub settled it by sending it: there is nothing to say.
    Presettled,
    /// Said to the hub.
    Settling(Settlement),
    /// Refused by us because it cannot be read; nobody waits for the answer.
    Unreadable,
}

impl Commands {
    /// Whether the hub has yet to answer a settlement.
    pub(super) fn is_waiting(&self) -> bool {
        self.echoing.is_some() || self.held.values().any(|held| matches!(held, Held::Settling(_)))
    }
}

impl Session {
    /// Has the hub send commands, at most `window` unsettled at once. A module has no commands: then nothing happens.
    pub(in crate::transport::amqp) fn receive_commands(&mut self, window: u16) {
        if self.terms.module_id.is_some() || self.commands.is_some() {
            return;
        }
        self.commands = Some(Commands {
            link: ReceiverLink::default(),
            window: u32::from(window.max(1)),
            second: true,
            refused: false,
            held: HashMap::new(),
            unproven: Vec::new(),
            echoing: None,
        });
        let source = Source::builder().address(amqp::device_commands(&self.terms.device_id)).build();
        self.attach(COMMANDS, Role::Receiver, source, Target::default(), ReceiverSettleMode::Second);
    }

    /// Settles a command; what came of it is told later, unless it is known at once.
    pub(in crate::transport::amqp) fn settle(
        &mut self,
        handle: Handle,
        settlement: Settlement,
        settled: &mut Vec<Settled>,
    ) {
        let id = u32::try_from(handle).ok();
        let known = self.commands.as_mut().zip(id);
        let Some((commands, id, held)) =
            known.and_then(|(commands, id)| commands.held.get(&id).copied().map(|held| (commands, id, held)))
        else {
            return settled.push(Settled { handle, result: Err(settled_twice()) });
        };
        match held {
            Held::Settling(_) | Held::Unreadable => {
                settled.push(Settled { handle, result: Err(settled_twice()) });
            }
            Held::Presettled => {
                commands.held.remove(&id);
                settled.push(Settled { handle, result: Ok(()) });
                self.grant();
            }
            Held::Open => {
                commands.held.insert(id, Held::Settling(settlement));
                self.say(id, settlement);
            }
        }
    }

    /// Gives the hub credit for as many commands as the window has room for, some at a time.
    pub(super) fn grant(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        if commands.link.remote_handle.is_none() {
            return;
        }
        let held = u32::try_from(commands.held.len()).unwrap_or(u32::MAX);
        let wanted = commands.window.saturating_sub(held);
        let lacking = wanted.saturating_sub(commands.link.credit);
        if lacking > 0 && (commands.link.credit == 0 || lacking * 2 >= commands.window) {
            commands.link.credit = wanted;
            self.send_flow(Some(COMMANDS), false);
        }
    }

    pub(super) fn command_arrived(
        &mut self,
        delivery_id: u32,
        settled: bool,
        message: Option<AmqpMessage>,
        incoming: &mut Incoming,
    ) {
        let Some(commands) = &mut self.commands else { return };
        // The lane is the outbox's idea; a command has none.
        let Some(decoded) = message.and_then(|message| amqp::decode(message, Lane::Telemetry).ok()) else {
            tracing::warn!("a command that cannot be read was rejected");
            if !settled {
                commands.held.insert(delivery_id, Held::Unreadable);
                self.say(delivery_id, Settlement::Reject);
            }
            return;
        };
        let known = |name| amqp::annotation(&decoded.annotations, name);
        let (sequence, count) = (known(annotation::SEQUENCE), known(annotation::DELIVERY_COUNT));
        incoming.commands.push(Arrived {
            handle: u64::from(delivery_id),
            sequence: sequence.and_then(amqp::number),
            enqueued_at: known(annotation::ENQUEUED_AT).and_then(amqp::time),
            delivery_count: count.and_then(amqp::number).and_then(|count| u32::try_from(count).ok()),
            message: decoded.message,
        });
        commands.held.insert(delivery_id, if settled { Held::Presettled } else { Held::Open });
    }

    /// Tells the hub what is to become of a command.
    pub(super) fn say(&mut self, delivery_id: u32, settlement: Settlement) {
        let second = self.commands.as_ref().is_some_and(|commands| commands.second);
        self.put_disposition(delivery_id, !second, state(settlement));
        if second {
            return;
        }
        if let Some(commands) = &mut self.commands {
            match commands.held.get(&delivery_id) {
                Some(Held::Unreadable) => drop(commands.held.remove(&delivery_id)),
                _ => commands.unproven.push(delivery_id),
            }
        }
        self.ask_for_proof();
        self.grant();
    }

    /// In mode first: has the hub say something after what was settled.
    pub(super) fn ask_for_proof(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        if commands.echoing.is_none() && !commands.unproven.is_empty() {
            commands.echoing = Some(take(&mut commands.unproven));
            self.send_flow(Some(COMMANDS), true);
        }
    }

    pub(super) fn put_disposition(&mut self, delivery_id: u32, settled: bool, state: DeliveryState) {
        let disposition = Disposition {
            role: Role::Receiver,
            first: delivery_id,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        };
        frame::put(&mut self.out, 0, &disposition);
    }

    /// Answers to our settlements of commands, or locks the hub took back by itself.
    pub(super) fn commands_disposed(&mut self, disposition: &Disposition, incoming: &mut Incoming) {
        let Some(commands) = self.commands.as_mut().filter(|_| disposition.settled) else { return };
        let (first, last) = (disposition.first, disposition.last.unwrap_or(disposition.first));
        let within = |id: u32| id.wrapping_sub(first) <= last.wrapping_sub(first);
        let mut ids: Vec<u32> = match first == last {
            true => vec![first],
            false => commands.held.keys().copied().filter(|id| within(*id)).collect(),
        };
        ids.sort_unstable();
        for id in ids {
            match commands.held.get(&id) {
                Some(Held::Settling(settlement)) => {
                    let result = answered(*settlement, disposition.state.as_ref());
                    incoming.settled.push(Settled { handle: u64::from(id), result });
                    commands.held.remove(&id);
                }
                Some(Held::Unreadable) => drop(commands.held.remove(&id)),
                // Settled by the hub while the program still has it: what the program says will get its answer then.
                Some(Held::Open | Held::Presettled) | None => {}
            }
        }
        self.grant();
    }

    pub(super) fn receiver_flowed(
        &mut self,
        handle: u32,
        flow: &Flow,
        incoming: &mut Incoming,
    ) -> Result<()> {
        if self.token_receiver.remote_handle == Some(handle) {
            if flow.echo {
                self.send_flow(Some(TOKENS_IN), false);
            }
            return Ok(());
        }
        let Some(commands) = self.commands.as_mut().filter(|known| known.link.remote_handle == Some(handle))
        else {
            return Err(violation("the server spoke of a link that is not attached (section 2.6.2)"));
        };
        if let Some(proven) = commands.echoing.take() {
            for id in proven {
                if let Some(Held::Settling(_)) = commands.held.remove(&id) {
                    incoming.settled.push(Settled { handle: u64::from(id), result: Ok(()) });
                }
            }
            self.ask_for_proof();
            self.grant();
        }
        if flow.echo {
            self.send_flow(Some(COMMANDS), false);
        }
        Ok(())
    }
}

fn state(settlement: Settlement) -> DeliveryState {
    match settlement {
        Settlement::Complete => DeliveryState::Accepted(Accepted {}),
        Settlement::Abandon => DeliveryState::Released(Released {}),
        Settlement::Reject => DeliveryState::Rejected(Rejected { error: None }),
    }
}

/// What the hub's answer to a settlement says.
fn answered(settlement: Settlement, state: Option<&DeliveryState>) -> Result<()> {
    match (settlement, state) {
        (_, Some(DeliveryState::Rejected(Rejected { error: Some(error) }))) => {
            Err(fault::told("command.settle", "the hub did not take the settlement", error))
        }
        (Settlement::Complete, Some(DeliveryState::Accepted(_)) | None)
        | (Settlement::Abandon, Some(DeliveryState::Released(_) | DeliveryState::Modified(_)) | None)
        | (Settlement::Reject, Some(DeliveryState::Rejected(_)) | None) => Ok(()),
        _ => Err(Error::new(
            ErrorKind::LockLost,
            "command.settle",
            "the hub settled the command in another way",
        )),
    }
}

fn settled_twice() -> Error {
    Error::new(ErrorKind::Conflict, "command.settle", "the command was settled before")
}
