//! The device client.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pyo3::{
    exceptions::PyIndexError,
    prelude::*,
    types::{PyIterator, PyTuple},
};
use tokio::runtime::Handle;
use whimbrel::{Outcome, ReceiptState, Result};
use whimbrel_bindings_support::{
    self as support, ConnectionStates, DeviceSettings, Pull, Sends, document, guard, settings,
};

use crate::{
    call::Call,
    convert,
    error::{exception, raised},
    fields::Message,
    port::{Answer, Completion, Port, Results},
    stream::{Commands, Connections},
    turn::Turn,
};

/// An open device client.
#[pyclass(frozen)]
pub(crate) struct Device(support::Bound<Open>);

struct Open {
    client: whimbrel::DeviceClient,
    runtime: Handle,
    sends: Sends<Token>,
}

#[pymethods]
impl Device {
    /// Opens one, with options as JSON.
    #[staticmethod]
    fn open(py: Python<'_>, connection_string: &Bound<'_, PyAny>, options: &str) -> PyResult<Call> {
        const OPERATION: &str = "device.open";
        let open = || {
            let connection_string = convert::text(OPERATION, "connection_string", connection_string)?;
            let options = settings::<DeviceSettings>(OPERATION, options)?.options(&connection_string)?;
            let runtime = support::runtime()?;
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                let client = whimbrel::DeviceClient::open(options).await?;
                let sends = Sends::new(client.clone(), &runtime, tell);
                Ok(Self(support::Bound::new(Open { client, runtime, sends })))
            }))
        };
        raised(py, guard(OPERATION, open))
    }

    /// Takes a message in; `future` gets its receipt once it is safe.
    fn send(
        &self,
        py: Python<'_>,
        port: &Port,
        future: Py<PyAny>,
        body: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<()> {
        let send = || {
            let Open { sends, .. } = self.0.get()?;
            let results = port.results()?;
            let message = convert::message(SEND, body, fields)?;
            py.detach(|| sends.send((results, future), message))
        };
        raised(py, guard(SEND, send))
    }

    /// Takes a message in and waits until it is safe.
    fn send_wait(
        &self,
        py: Python<'_>,
        body: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Receipt> {
        let send = || {
            let Open { client, .. } = self.0.get()?;
            let message = convert::message(SEND, body, fields)?;
            py.detach(|| client.accept(message)?.wait_stored())
        };
        raised(py, guard(SEND, send)).map(Receipt::new)
    }

    /// Takes a message in; the call waits until it is safe.
    fn send_call(
        &self,
        py: Python<'_>,
        body: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Call> {
        let send = || {
            let Open { client, runtime, .. } = self.0.get()?;
            let message = convert::message(SEND, body, fields)?;
            let accepted = py.detach(|| client.accept(message))?;
            Ok(Call::new(SEND, runtime.clone(), async { accepted.stored().await.map(Receipt::new) }))
        };
        raised(py, guard(SEND, send))
    }

    /// Takes all messages of a batch in, with one commit.
    fn send_all(&self, py: Python<'_>, batch: &Batch) -> PyResult<Call> {
        const OPERATION: &str = "device.send_all";
        let send = || {
            let Open { client, runtime, .. } = self.0.get()?;
            let slices = mem::take(&mut *batch.slices());
            let (client, dropped_on) = (client.clone(), runtime.clone());
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                let receipts = client.send_all(slices.into_iter().flatten()).await?;
                Ok(Receipts { receipts: support::Bound::new(receipts.into()), dropped_on })
            }))
        };
        raised(py, guard(OPERATION, send))
    }

    /// The receipt of a message by its id, or None.
    fn receipt(&self, py: Python<'_>, message_id: &Bound<'_, PyAny>) -> PyResult<Call> {
        const OPERATION: &str = "device.receipt";
        let find = || {
            let Open { client, runtime, .. } = self.0.get()?;
            let message_id = convert::text(OPERATION, "message_id", message_id)?;
            let client = client.clone();
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                Ok(client.receipt(&message_id).await?.map(Receipt::new))
            }))
        };
        raised(py, guard(OPERATION, find))
    }

    /// Waits until everything is settled or the time is over; how many messages are left.
    fn flush(&self, py: Python<'_>, deadline_ms: u64) -> PyResult<Call> {
        const OPERATION: &str = "device.flush";
        let flush = || {
            let Open { client, runtime, .. } = self.0.get()?;
            let client = client.clone();
            let deadline = Duration::from_millis(deadline_ms);
            Ok(Call::new(OPERATION, runtime.clone(), async move { client.flush(deadline).await }))
        };
        raised(py, guard(OPERATION, flush))
    }

    /// The commands for this device.
    fn inbox(&self, py: Python<'_>) -> PyResult<Commands> {
        let inbox = || {
            let Open { client, runtime, .. } = self.0.get()?;
            Ok(Commands::new(runtime.clone(), Pull::new(client.inbox())))
        };
        raised(py, guard("device.inbox", inbox))
    }

    /// What the link is doing: state and reason.
    fn connection<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = raised(py, self.0.get())?.client.connection().borrow().clone();
        convert::json(py, &document::connection_state(&state))
    }

    /// The changes of what the link is doing, the present state first.
    fn connection_changes(&self, py: Python<'_>) -> PyResult<Connections> {
        let changes = || {
            let Open { client, runtime, .. } = self.0.get()?;
            Ok(Connections::new(runtime.clone(), Pull::new(ConnectionStates::new(client.connection()))))
        };
        raised(py, guard("device.connection_changes", changes))
    }

    /// The account, by name.
    fn account<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let account = || Ok(py.detach(|| self.0.get().map(|open| open.client.account())));
        let account = raised(py, guard("device.account", account).and_then(|account| account))?;
        convert::json(py, &document::account(&account))
    }

    /// The figures, by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let counters = || Ok(py.detach(|| self.0.get().map(|open| open.client.counters())));
        let counters = raised(py, guard("device.counters", counters).and_then(|counters| counters))?;
        convert::json(py, &document::counters(&counters))
    }

    /// Closes it.
    fn close(&self, py: Python<'_>) -> PyResult<Call> {
        const OPERATION: &str = "device.close";
        let close = || {
            let Open { client, runtime, .. } = self.0.get()?;
            let client = client.clone();
            Ok(Call::new(OPERATION, runtime.clone(), async move { client.close().await }))
        };
        raised(py, guard(OPERATION, close))
    }
}

/// Who waits for a message: a future, and the way to its loop.
type Token = (Results, Py<PyAny>);

/// Puts down what became of messages, for the loops that wait for them.
fn tell(batch: Vec<(Token, Result<whimbrel::Receipt>)>) {
    let mut of = None;
    let mut completions = Vec::with_capacity(batch.len());
    for ((results, future), stored) in batch {
        let answer = stored.map_or_else(Answer::Failed, Answer::Receipt);
        let same = of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &results));
        if !same && let Some(before) = of.replace(results) {
            before.push(completions.drain(..));
        }
        completions.push(Completion { future, answer });
    }
    if let Some(last) = of {
        last.push(completions);
    }
}

/// A message that was taken in.
#[pyclass(frozen)]
pub(crate) struct Receipt(support::Bound<whimbrel::Receipt>);

impl Receipt {
    pub(crate) fn new(receipt: whimbrel::Receipt) -> Self {
        Self(support::Bound::new(receipt))
    }
}

#[pymethods]
impl Receipt {
    /// The id to find it again with.
    #[getter]
    fn message_id(&self, py: Python<'_>) -> PyResult<&str> {
        raised(py, self.0.get()).map(whimbrel::Receipt::message_id)
    }

    /// Where the message is: the word, and the outcome if it has ended.
    fn state(&self, py: Python<'_>) -> PyResult<(&'static str, Option<OutcomeParts>)> {
        let state = || Ok(py.detach(|| self.0.get().map(whimbrel::Receipt::state)));
        let state = raised(py, guard("receipt.state", state).and_then(|state| state))?;
        Ok(match state {
            ReceiptState::Queued => ("queued", None),
            ReceiptState::Sent => ("sent", None),
            ReceiptState::Unknown => ("unknown", None),
            ReceiptState::Settled(outcome) => ("settled", Some(parts(outcome))),
        })
    }

    /// Waits for the end.
    fn outcome(&self, py: Python<'_>) -> PyResult<Call> {
        const OPERATION: &str = "receipt.outcome";
        let outcome = || {
            let receipt = self.0.get()?.clone();
            let runtime = support::runtime()?;
            Ok(Call::new(OPERATION, runtime, async move { receipt.outcome().await.map(parts) }))
        };
        raised(py, guard(OPERATION, outcome))
    }
}

/// Kind, partition, sequence, reason.
type OutcomeParts = (&'static str, Option<u32>, Option<u64>, Option<String>);

fn parts(outcome: Outcome) -> OutcomeParts {
    match outcome {
        Outcome::Delivered { partition, sequence } => ("delivered", partition, sequence, None),
        Outcome::Expired => ("expired", None, None, None),
        Outcome::Dropped { reason } => ("dropped", None, None, Some(reason.name().to_owned())),
        Outcome::Rejected { reason } => ("rejected", None, None, Some(reason)),
        // The core has a new one, which the test of the words finds.
        other => ("unknown", None, None, Some(format!("{other:?}"))),
    }
}

/// The receipts of many messages; each becomes an object when it is asked for.
#[pyclass(frozen)]
pub(crate) struct Receipts {
    receipts: support::Bound<Arc<[whimbrel::Receipt]>>,
    dropped_on: Handle,
}

#[pymethods]
impl Receipts {
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        raised(py, self.receipts.get()).map(|receipts| receipts.len())
    }

    fn __getitem__(&self, py: Python<'_>, index: usize) -> PyResult<Receipt> {
        let receipt = raised(py, self.receipts.get())?.get(index).cloned();
        receipt.map(Receipt::new).ok_or_else(|| PyIndexError::new_err("there is no such receipt"))
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        // Many take their time to drop, and whoever drops them here holds the interpreter's lock.
        if let Ok(receipts) = self.receipts.get()
            && receipts.len() > FEW
        {
            let receipts = receipts.clone();
            self.dropped_on.spawn(async move {
                tokio::task::yield_now().await;
                drop(receipts);
            });
        }
    }
}

/// Messages on their way to being sent together. Filled in slices, between which others have their turn.
#[pyclass(frozen)]
pub(crate) struct Batch(Mutex<Vec<Vec<whimbrel::Message>>>);

#[pymethods]
impl Batch {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// Takes the next messages of an iterator; whether there may be more.
    fn fill(&self, messages: &Bound<'_, PyIterator>) -> PyResult<bool> {
        const OPERATION: &str = "device.send_all";
        let py = messages.py();
        let turn = Turn::begin();
        let mut slice = Vec::with_capacity(8 * STEP);
        let mut more = true;
        let mut bytes = 0;
        loop {
            let Some(item) = messages.clone().next() else {
                more = false;
                break;
            };
            let item = item?;
            let message = match item.cast::<Message>() {
                Ok(message) => message.get().0.clone(),
                Err(_) => {
                    let index = self.__len__() + slice.len();
                    let made = guard(OPERATION, || convert::message(OPERATION, &item, None));
                    made.map_err(|error| exception(py, &error.with("index", index)))?
                }
            };
            bytes += message.body().len();
            slice.push(message);
            if slice.len().is_multiple_of(STEP) || bytes > STEP_BYTES {
                bytes = 0;
                if turn.is_over() {
                    break;
                }
            }
        }
        // A slice stays as it is: one long list would be moved, all of it, whenever it grows.
        self.slices().push(slice);
        Ok(more)
    }

    fn __len__(&self) -> usize {
        self.slices().iter().map(Vec::len).sum()
    }
}

impl Batch {
    fn slices(&self) -> MutexGuard<'_, Vec<Vec<whimbrel::Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SEND: &str = "device.send";
/// Messages, and bytes of bodies, that are taken over between two looks at the clock.
const STEP: usize = 8;
const STEP_BYTES: usize = 32 << 10;
/// More receipts than this are dropped elsewhere.
const FEW: usize = 64;
