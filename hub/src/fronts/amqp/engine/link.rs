//! A link, as the engine knows it.

use std::{collections::VecDeque, task::Waker};

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::{Error, Role},
    messaging::DeliveryState,
};

/// Names a link of a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::fronts::amqp) struct LinkId(pub(super) u64);

/// Why nothing more comes or goes on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fronts::amqp) enum Ended {
    /// It was detached, by either side, or its connection is gone.
    Detached,
    /// The hub stops. What is under way may still be answered; then the link is to be dropped.
    Stopping,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub(in crate::fronts::amqp) struct Delivery {
    /// To dispose of it by.
    pub(in crate::fronts::amqp) id: u32,
    /// What kind of payload it is.
    pub(in crate::fronts::amqp) format: u32,
    /// Whether the sender wants no answer.
    pub(in crate::fronts::amqp) settled: bool,
    /// The encoded message; empty when it was too large.
    pub(in crate::fronts::amqp) payload: Bytes,
    /// Whether it was larger than the link allows.
    pub(in crate::fronts::amqp) oversize: bool,
}

/// What the peer did about a message it was sent.
#[derive(Clone, Debug)]
pub(in crate::fronts::amqp) struct Disposition {
    /// The number [`super::Engine::transfer`] gave.
    pub(in crate::fronts::amqp) id: u32,
    /// The outcome, where it said one.
    pub(in crate::fronts::amqp) state: Option<DeliveryState>,
    /// Whether the peer has forgotten it; otherwise it waits for the hub to settle.
    pub(in crate::fronts::amqp) settled: bool,
}

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The peer attached it; the hub has not decided yet.
    Pending,
    /// In use.
    Attached,
    /// The hub detached it; the peer has not answered yet.
    Detaching,
    /// Over.
    Gone,
}

/// The beginning of a message whose rest has not arrived.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) id: u32,
    pub(super) format: u32,
    pub(super) settled: bool,
    pub(super) oversize: bool,
    pub(super) payload: BytesMut,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) channel: u16,
    pub(super) handle: u32,
    /// Our side's.
    pub(super) role: Role,
    pub(super) standing: Standing,
    pub(super) stopping: bool,
    /// Why it is to be detached as soon as it was attached.
    pub(super) doomed: Option<Error>,
    /// Whether somebody still holds the link's handle.
    pub(super) held: bool,
    pub(super) waker: Option<Waker>,
    pub(super) delivery_count: u32,
    /// Messages that may still be sent on it.
    pub(super) credit: u32,
    /// Sending: the peer wants what there is, and then to be told that there is no more.
    pub(super) drain: bool,
    /// Sending: what the peer did.
    pub(super) dispositions: VecDeque<Disposition>,
    /// Receiving: largest message.
    pub(super) largest: usize,
    /// Receiving: credit when nothing is under way.
    pub(super) window: u32,
    /// Receiving: messages dealt with, whose credit was not given back yet.
    pub(super) done: u32,
    pub(super) partial: Option<Partial>,
    pub(super) arrived: VecDeque<Delivery>,
}

impl Link {
    pub(super) fn new(channel: u16, handle: u32, role: Role) -> Self {
        Self {
            channel,
            handle,
            role,
            standing: Standing::Pending,
            stopping: false,
            doomed: None,
            held: true,
            waker: None,
            delivery_count: 0,
            credit: 0,
            drain: false,
            dispositions: VecDeque::new(),
            largest: 0,
            window: 0,
            done: 0,
            partial: None,
            arrived: VecDeque::new(),
        }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        match self.standing {
            Standing::Detaching | Standing::Gone => Some(Ended::Detached),
            _ if self.stopping => Some(Ended::Stopping),
            _ => None,
        }
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
