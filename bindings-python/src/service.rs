//! The back end's client.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::{
    prelude::*,
    types::{PyString, PyTuple},
};
use tokio::runtime::Handle;
use whimbrel::{Error, ErrorKind, Result, service};
use whimbrel_bindings_support::{
    self as support, Bound as Here, EventsSettings, Pull, SendSettings, ServiceSettings, document, guard,
    settings,
};

use crate::{
    call::Call,
    convert,
    error::{invalid, raised},
    registry::Registry,
    stream::{Events, Feedbacks},
};

/// A back end's connection.
#[pyclass(frozen)]
pub(crate) struct Service(Here<Open>);

struct Open {
    client: service::ServiceClient,
    runtime: Handle,
}

#[pymethods]
impl Service {
    /// Makes one, with options as JSON.
    #[staticmethod]
    fn connect(py: Python<'_>, connection_string: &Bound<'_, PyAny>, options: &str) -> PyResult<Call> {
        const OPERATION: &str = "service.connect";
        let connect = || {
            let connection_string = convert::text(OPERATION, "connection_string", connection_string)?;
            let options = settings::<ServiceSettings>(OPERATION, options)?.options(&connection_string)?;
            let runtime = support::runtime()?;
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                let client = service::ServiceClient::connect(options).await?;
                Ok(Self(Here::new(Open { client, runtime })))
            }))
        };
        raised(py, guard(OPERATION, connect))
    }

    /// Sends a command, with options as JSON; the result follows it.
    fn send(
        &self,
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        body: &Bound<'_, PyAny>,
        fields: Option<&Bound<'_, PyTuple>>,
        options: &str,
    ) -> PyResult<Call> {
        const OPERATION: &str = "service.send";
        let send = || {
            let Open { client, runtime } = self.0.get()?;
            let device = convert::text(OPERATION, "device_id", device)?;
            let message = convert::message(OPERATION, body, fields)?;
            let options = settings::<SendSettings>(OPERATION, options)?.options()?;
            let client = client.clone();
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                Ok(Tracked(Here::new(client.send(&device, message, options).await?)))
            }))
        };
        raised(py, guard(OPERATION, send))
    }

    /// Follows a command that was sent before.
    fn tracked(
        &self,
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        message_id: &Bound<'_, PyAny>,
    ) -> PyResult<Tracked> {
        const OPERATION: &str = "service.tracked";
        let tracked = || {
            let Open { client, runtime } = self.0.get()?;
            let device = convert::text(OPERATION, "device_id", device)?;
            let message_id = convert::text(OPERATION, "message_id", message_id)?;
            // It may start a task.
            let _here = runtime.enter();
            client.tracked(&device, &message_id).map(|tracked| Tracked(Here::new(tracked)))
        };
        raised(py, guard(OPERATION, tracked))
    }

    /// Feedback about commands.
    fn feedback(&self, py: Python<'_>) -> PyResult<Feedbacks> {
        let feedback = || {
            let Open { client, runtime } = self.0.get()?;
            let _here = runtime.enter();
            Ok(Feedbacks::new(runtime.clone(), Pull::new(client.feedback()?)))
        };
        raised(py, guard("service.feedback", feedback))
    }

    /// Opens a reader of events, with options as JSON. Checkpoints are kept in a folder (its path), at the hub (True), in
    /// memory, or not at all (None). The result is the name of the reader, and the reader.
    fn events(
        &self,
        py: Python<'_>,
        options: &str,
        checkpoints: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        const OPERATION: &str = "service.events";
        let events = || {
            let Open { client, runtime } = self.0.get()?;
            let options = settings::<EventsSettings>(OPERATION, options)?;
            let store = checkpoints.map(|checkpoints| Store::of(OPERATION, checkpoints)).transpose()?;
            let (client, on) = (client.clone(), runtime.clone());
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                let store = match store {
                    None => None,
                    Some(store) => Some(store.open(&client).await?),
                };
                let reader = options.apply(client.events(), store)?.open().await?;
                Ok((reader.name().to_owned(), Events::new(on, Pull::new(reader))))
            }))
        };
        raised(py, guard(OPERATION, events))
    }

    /// Creates, changes and deletes identities.
    fn registry(&self, py: Python<'_>) -> PyResult<Registry> {
        let registry = || {
            let Open { client, runtime } = self.0.get()?;
            Ok(Registry::new(runtime.clone(), client.registry()))
        };
        raised(py, guard("service.registry", registry))
    }

    /// Closes it.
    fn close(&self, py: Python<'_>) -> PyResult<Call> {
        const OPERATION: &str = "service.close";
        let close = || {
            let Open { client, runtime } = self.0.get()?;
            let client = client.clone();
            Ok(Call::new(OPERATION, runtime.clone(), async move {
                client.close().await;
                Ok(())
            }))
        };
        raised(py, guard(OPERATION, close))
    }
}

/// Where checkpoints are kept.
enum Store {
    Folder(String),
    Hub,
    Memory(service::MemoryCheckpoints),
}

impl Store {
    fn of(operation: &'static str, given: &Bound<'_, PyAny>) -> Result<Self> {
        if given.is_instance_of::<PyString>() {
            return convert::text(operation, "checkpoints", given).map(Self::Folder);
        }
        if let Ok(memory) = given.cast::<Memory>() {
            return Ok(Self::Memory(memory.get().0.clone()));
        }
        match given.extract() {
            Ok(true) => Ok(Self::Hub),
            _ => Err(invalid(operation, "checkpoints", "is no checkpoint store")),
        }
    }

    async fn open(self, client: &service::ServiceClient) -> Result<Arc<dyn service::CheckpointStore>> {
        Ok(match self {
            Self::Folder(folder) => {
                let open = tokio::task::spawn_blocking(|| service::FileCheckpoints::open(folder));
                let ended = |error| {
                    let text = "the work did not end";
                    Error::new(ErrorKind::Internal, "service.events", text).caused_by(error)
                };
                Arc::new(open.await.map_err(ended)??)
            }
            Self::Hub => Arc::new(service::HubCheckpoints::new(client)),
            Self::Memory(memory) => Arc::new(memory),
        })
    }
}

/// Checkpoints in memory.
#[pyclass(frozen)]
pub(crate) struct Memory(service::MemoryCheckpoints);

#[pymethods]
impl Memory {
    #[new]
    fn new() -> Self {
        Self(service::MemoryCheckpoints::new())
    }
}

/// A command that was sent.
#[pyclass(frozen)]
pub(crate) struct Tracked(Here<service::Tracked>);

#[pymethods]
impl Tracked {
    /// The device it is for.
    #[getter]
    fn device_id(&self, py: Python<'_>) -> PyResult<&str> {
        raised(py, self.0.get()).map(service::Tracked::device)
    }

    /// Its message id.
    #[getter]
    fn message_id(&self, py: Python<'_>) -> PyResult<&str> {
        raised(py, self.0.get()).map(service::Tracked::message_id)
    }

    /// Waits until it has ended.
    fn outcome(&self, py: Python<'_>) -> PyResult<Call> {
        const OPERATION: &str = "tracked.outcome";
        let outcome = || {
            let tracked = self.0.get()?.clone();
            Ok(Call::new(OPERATION, support::runtime()?, async move {
                tracked.outcome().await.map(document::command_outcome)
            }))
        };
        raised(py, guard(OPERATION, outcome))
    }
}

/// Some feedback records, to be settled once.
#[pyclass(frozen)]
pub(crate) struct FeedbackBatch {
    told: Told,
    batch: Here<Mutex<Option<service::FeedbackBatch>>>,
}

struct Told {
    records: Vec<serde_json::Value>,
    enqueued_at_ms: Option<i64>,
}

impl FeedbackBatch {
    pub(crate) fn new(batch: service::FeedbackBatch) -> Self {
        let told = Told {
            records: batch.records().iter().map(document::feedback).collect(),
            enqueued_at_ms: batch.enqueued_at().map(document::unix_ms),
        };
        Self { told, batch: Here::new(Mutex::new(Some(batch))) }
    }
}

#[pymethods]
impl FeedbackBatch {
    /// The records, and when the newest of them was made.
    fn told<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Option<i64>)> {
        let records = serde_json::Value::Array(self.told.records.clone());
        Ok((convert::json(py, &records)?, self.told.enqueued_at_ms))
    }

    /// Settles it: `complete` or else gives it back.
    fn settle(&self, py: Python<'_>, complete: bool) -> PyResult<Call> {
        const OPERATION: &str = "feedback.settle";
        let settle = || {
            let batch = self.batch.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
            let batch = batch.ok_or_else(|| {
                Error::new(ErrorKind::Conflict, OPERATION, "this feedback was settled before")
            })?;
            Ok(Call::new(OPERATION, support::runtime()?, async move {
                if complete { batch.complete().await } else { batch.abandon().await }
            }))
        };
        raised(py, guard(OPERATION, settle))
    }
}
