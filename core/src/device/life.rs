//! The lives of a client: at work, suspended, closed; and who may lead from one to the other.
//!
//! One value says where the client is, and whoever changes it does the work that goes with the change: the task ends
//! itself, and a resumption runs on a thread of its own. Callers only wish and wait, so a caller that stops waiting
//! leaves nothing half done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{Shared, options::Way, task::Task};
use crate::{
    ConnectionState, Error, ErrorKind, Result, inbox,
    outbox::Outbox,
    transport::{Transport, mqtt::MqttTransport},
};

/// The longest budget that is told from for ever.
const LONG: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Most of a budget that is kept for saying goodbye to the hub.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its task delivers.
    Open,
    /// Its task flushes, and is to end.
    Suspending(Budget),
    /// Nothing is at work.
    Suspended,
    /// Being opened; to be closed again at once when the program wishes that meanwhile.
    Resuming { close: bool },
    /// Its task flushes, and is to end for good.
    Closing,
    /// Nothing is at work any more; so it is when the task went with its runtime.
    Closed,
}

/// What the program gives a client for getting ready to be suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Budget {
    /// When flushing ends.
    pub(super) flush: Instant,
    /// When the goodbye ends, too.
    pub(super) end: Instant,
}

impl Budget {
    pub(super) fn starting_now(budget: Duration) -> Self {
        let budget = budget.min(LONG);
        let now = Instant::now();
        Self { flush: now + (budget - (budget / 10).min(GOODBYE)), end: now + budget }
    }
}

/// What the client and its task have in common.
pub(super) struct Life {
    pub(super) phase: watch::Sender<Phase>,
    /// For the next task to tell the state of the connection with, while there is none.
    parked: Mutex<Option<watch::Sender<ConnectionState>>>,
    /// Why suspending or closing failed, for the first who asks.
    failure: Mutex<Option<Error>>,
}

impl Life {
    /// That of a client about to be opened.
    pub(super) fn new(state: watch::Sender<ConnectionState>) -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(Phase::Resuming { close: false }),
            parked: Mutex::new(Some(state)),
            failure: Mutex::new(None),
        })
    }

    /// Changes the phase to what `next` says, if anything.
    pub(super) fn turn(&self, next: impl FnOnce(Phase) -> Option<Phase>) {
        self.phase.send_if_modified(|phase| match next(*phase) {
            Some(next) => {
                *phase = next;
                true
            }
            None => false,
        });
    }

    pub(super) fn failed(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn failure(&self) -> Result<()> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The task has come to its end, and has let go of everything.
    fn ended(&self, state: watch::Sender<ConnectionState>, outbox: &Outbox, inbox: &inbox::Shared) {
        let mut closing = *self.phase.borrow() == Phase::Closing;
        if !closing {
            state.send_replace(ConnectionState::Suspended);
        }
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        self.turn(|phase| {
            closing = !matches!(phase, Phase::Suspending(_));
            (!closing).then_some(Phase::Suspended)
        });
        if closing {
            self.close(outbox, inbox);
        }
    }

    /// Closes what has no task. The journals are closed: nothing is left to be written.
    fn close(&self, outbox: &Outbox, inbox: &inbox::Shared) {
        let _ = outbox.close();
        let _ = inbox.close();
        if let Some(state) = self.take_parked() {
            state.send_replace(ConnectionState::Closed);
        }
        self.phase.send_replace(Phase::Closed);
    }

    fn take_parked(&self) -> Option<watch::Sender<ConnectionState>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Shared {
    /// Flushes for as long as the budget says and lets go of everything. See [`super::DeviceClient::suspend`].
    pub(super) async fn suspend(&self, budget: Budget) -> Result<u64> {
        let mut phases = self.life.phase.subscribe();
        // One that is being opened is waited for: what it opens has to be closed.
        let _ = phases.wait_for(|phase| !matches!(phase, Phase::Resuming { .. })).await;
        self.life.turn(|phase| match phase {
            Phase::Open => Some(Phase::Suspending(budget)),
            Phase::Suspending(before) if budget < before => Some(Phase::Suspending(budget)),
            _ => None,
        });
        let ended = phases.wait_for(|phase| !matches!(phase, Phase::Suspending(_))).await;
        if ended.is_ok_and(|phase| matches!(*phase, Phase::Closing | Phase::Closed)) {
            return Err(Error::new(ErrorKind::Closed, "device.suspend", CLOSED));
        }
        self.life.failure()?;
        Ok(self.outbox.account().queued)
    }

    /// Opens what was let go of. See [`super::DeviceClient::resume`].
    pub(super) async fn resume(self: &Arc<Self>) -> Result<()> {
        let runtime = runtime("device.resume")?;
        let mut phases = self.life.phase.subscribe();
        loop {
            let mut mine = false;
            self.life.turn(|phase| {
                mine = phase == Phase::Suspended;
                mine.then_some(Phase::Resuming { close: false })
            });
            if mine {
                let resumption = Resumption { shared: self.clone(), runtime, succeeded: false };
                return super::blocking("device.resume", move || resumption.run()).await;
            }
            match *phases.borrow_and_update() {
                Phase::Open => return Ok(()),
                Phase::Closing | Phase::Closed => {
                    return Err(Error::new(ErrorKind::Closed, "device.resume", CLOSED));
                }
                Phase::Suspended => continue,
                Phase::Suspending(_) | Phase::Resuming { .. } => {}
            }
            // Its sender is ours: this cannot fail.
            let _ = phases.changed().await;
        }
    }

    /// Has the client closed; [`Phase::Closed`] says when it is.
    pub(super) fn begin_to_close(&self) {
        self.inbox.close_intake();
        let mut suspended = false;
        self.life.turn(|phase| match phase {
            Phase::Open | Phase::Suspending(_) => Some(Phase::Closing),
            Phase::Suspended => {
                suspended = true;
                Some(Phase::Closing)
            }
            Phase::Resuming { .. } => Some(Phase::Resuming { close: true }),
            Phase::Closing | Phase::Closed => None,
        });
        if suspended {
            self.life.close(&self.outbox, &self.inbox);
        }
    }

    /// Starts the task on `runtime`. The phase is `Resuming`.
    pub(super) fn start(&self, way: Way, runtime: &Handle) -> Result<()> {
        match way {
            Way::Mqtt(options) => self.start_with(MqttTransport::new(options)?, runtime),
            #[cfg(feature = "amqp")]
            Way::Amqp(options) => {
                self.start_with(crate::transport::amqp::AmqpTransport::new(options)?, runtime)
            }
            #[cfg(feature = "http")]
            Way::Http(options) => {
                self.start_with(crate::transport::http::HttpTransport::new(options)?, runtime)
            }
        }
    }

    fn start_with<T: Transport>(&self, transport: T, runtime: &Handle) -> Result<()> {
        let seed = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Internal, "device.open", "the system has no randomness to give")
                .caused_by(error)
        })?;
        let state = self
            .life
            .take_parked()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "device.open", "the client is at work already"))?;
        state.send_replace(ConnectionState::Disconnected { reason: None });
        let habits = self.options.habits();
        let (life, outbox, inbox) = (self.life.clone(), self.outbox.clone(), self.inbox.clone());
        let task =
            Task::new(outbox.clone(), inbox.clone(), transport, habits, seed, state, life.phase.subscribe());
        self.life.turn(|phase| match phase {
            Phase::Resuming { close: true } => Some(Phase::Closing),
            _ => Some(Phase::Open),
        });
        let mut lost = Lost(Some(life));
        runtime.spawn(async move {
            let (state, result) = task.run().await;
            if let Some(life) = lost.0.take() {
                result.unwrap_or_else(|error| life.failed(error));
                life.ended(state, &outbox, &inbox);
            }
        });
        Ok(())
    }
}

/// When the task goes without coming to its end, with its runtime, the client is closed.
struct Lost(Option<Arc<Life>>);

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.phase.send_replace(Phase::Closed);
        }
    }
}

/// A client being opened again: what is begun is brought to an end, whoever waits for it.
struct Resumption {
    shared: Arc<Shared>,
    runtime: Handle,
    succeeded: bool,
}

impl Resumption {
    fn run(mut self) -> Result<()> {
        let shared = self.shared.clone();
        let way = shared.options.transport().map_err(|error| error.in_operation("device.resume"))?;
        shared.outbox.resume()?;
        let result = shared.inbox.resume().and_then(|()| shared.start(way, &self.runtime));
        self.succeeded = result.is_ok();
        if !self.succeeded {
            let _ = shared.inbox.suspend();
            let _ = shared.outbox.suspend();
        }
        result
    }
}

impl Drop for Resumption {
    fn drop(&mut self) {
        if self.succeeded {
            return;
        }
        let mut close = false;
        self.shared.life.turn(|phase| {
            close = phase == Phase::Resuming { close: true };
            Some(if close { Phase::Closing } else { Phase::Suspended })
        });
        if close {
            self.shared.life.close(&self.shared.outbox, &self.shared.inbox);
        }
    }
}

/// The runtime that calls.
pub(super) fn runtime(operation: &'static str) -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, operation, "there is no tokio runtime here").caused_by(error)
    })
}

pub(super) const CLOSED: &str = "the client was closed";
