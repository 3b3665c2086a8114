//! Streams: the shell takes an item in the step of the task that wants it; what crosses threads is only that there is one.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};
use tokio::runtime::Handle;
use whimbrel::{Error, ErrorKind, Inbox, service};
use whimbrel_bindings_support::{
    self as support, Bound as Here, ConnectionStates, Pull, Source, document, guard,
};

use crate::{call::Call, convert, error::raised, fields, service::FeedbackBatch};

/// A stream and where its waiting is done.
pub(crate) struct Stream<S: Source>(Here<(Handle, Pull<S>)>);

impl<S: Source> Stream<S> {
    pub(crate) fn new(runtime: Handle, pull: Pull<S>) -> Self {
        Self(Here::new((runtime, pull)))
    }

    /// The item, `Some(None)` at the end, or `None` when there is nothing yet.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Option<Option<S::Item>>> {
        let take = || self.0.get().map(|(_, pull)| pull.take());
        raised(py, guard("next", take).and_then(Option::transpose))
    }

    pub(crate) fn ready(&self, py: Python<'_>) -> PyResult<Call> {
        let ready = || {
            let (runtime, pull) = self.0.get()?;
            let pull = pull.clone();
            Ok(Call::new("next", runtime.clone(), async move { pull.ready().await }))
        };
        raised(py, guard("next", ready))
    }

    pub(crate) fn pass_on(&self) {
        // Behind a fork nobody waits.
        if let Ok((_, pull)) = self.0.get() {
            pull.pass_on();
        }
    }

    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<Call> {
        let close = || {
            let (runtime, pull) = self.0.get()?;
            let pull = pull.clone();
            Ok(Call::new("close", runtime.clone(), async move { pull.close().await }))
        };
        raised(py, guard("close", close))
    }
}

/// What `take` of each stream gives the shell: `(item,)`, `(None,)` at the end, `None` when there is nothing yet.
type Taken<T> = Option<(Option<T>,)>;

/// A stream as a class: the same four methods for each.
macro_rules! stream {
    ($(#[$doc:meta])* $name:ident, $source:ty, $item:ty, |$py:ident, $taken:ident| $make:expr) => {
        $(#[$doc])*
        #[pyclass(frozen)]
        pub(crate) struct $name(Stream<$source>);

        impl $name {
            pub(crate) fn new(runtime: Handle, pull: Pull<$source>) -> Self {
                Self(Stream::new(runtime, pull))
            }
        }

        #[pymethods]
        impl $name {
            /// What there is now: a tuple with the item, or with None at the end; None when there is nothing yet.
            fn take<'py>(&self, $py: Python<'py>) -> PyResult<Taken<$item>> {
                Ok(match self.0.take($py)? {
                    None => None,
                    Some(None) => Some((None,)),
                    Some(Some($taken)) => Some((Some($make),)),
                })
            }

            /// Waits until there is something to take.
            fn ready(&self, py: Python<'_>) -> PyResult<Call> {
                self.0.ready(py)
            }

            /// Has others look again, for whoever stops waiting.
            fn pass_on(&self) {
                self.0.pass_on();
            }

            /// Ends it.
            fn close(&self, py: Python<'_>) -> PyResult<Call> {
                self.0.close(py)
            }
        }
    };
}

stream! {
    /// The commands of a device.
    Commands, Inbox, Command, |_py, command| Command(Here::new(command.into()))
}

stream! {
    /// What the link of a device is doing.
    Connections, ConnectionStates, Bound<'py, PyAny>, |py, state| {
        convert::json(py, &document::connection_state(&state))?
    }
}

stream! {
    /// The events of a hub.
    Events, service::EventReader, Event, |_py, event| Event(Here::new(event))
}

stream! {
    /// The feedback a hub keeps.
    Feedbacks, service::FeedbackReader, FeedbackBatch, |_py, batch| FeedbackBatch::new(batch)
}

/// An event.
#[pyclass(frozen)]
pub(crate) struct Event(Here<service::Event>);

#[pymethods]
impl Event {
    /// What was sent.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, raised(py, self.0.get())?.message().body()))
    }

    /// All it says besides, by name.
    fn said<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let event = raised(py, self.0.get())?;
        let said = fields::said(py, event.message())?;
        said.set_item("device_id", event.device_id())?;
        said.set_item("module_id", event.module_id())?;
        said.set_item("generation", event.generation())?;
        said.set_item("auth_method", event.auth_method())?;
        said.set_item("source", event.source())?;
        said.set_item("partition", event.partition())?;
        said.set_item("sequence", event.sequence())?;
        said.set_item("offset", event.offset())?;
        said.set_item("enqueued_at_ms", document::unix_ms(event.enqueued_at()))?;
        Ok(said)
    }

    /// Stores that this event, and all before it in its partition, were dealt with.
    fn checkpoint(&self, py: Python<'_>) -> PyResult<Call> {
        const OPERATION: &str = "event.checkpoint";
        let checkpoint = || {
            let event = self.0.get()?.clone();
            Ok(Call::new(OPERATION, support::runtime()?, async move { event.checkpoint().await }))
        };
        raised(py, guard(OPERATION, checkpoint))
    }
}

/// A command, to be settled.
#[pyclass(frozen)]
pub(crate) struct Command(Here<std::sync::Arc<whimbrel::Command>>);

#[pymethods]
impl Command {
    /// What the service sent.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, raised(py, self.0.get())?.body()))
    }

    /// All it says besides, by name.
    fn said<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let command = raised(py, self.0.get())?;
        let said = fields::said(py, command.message())?;
        said.set_item("sequence", command.sequence())?;
        said.set_item("enqueued_at_ms", command.enqueued_at().map(document::unix_ms))?;
        said.set_item("delivery_count", command.delivery_count())?;
        Ok(said)
    }

    /// Settles it: `complete`, `abandon` or `reject`.
    fn settle(&self, py: Python<'_>, how: &str) -> PyResult<Call> {
        const OPERATION: &str = "command.settle";
        let settle = || {
            let command = self.0.get()?.clone();
            let runtime = support::runtime()?;
            Ok(match how {
                "complete" => Call::new(OPERATION, runtime, async move { command.complete().await }),
                "abandon" => Call::new(OPERATION, runtime, async move { command.abandon().await }),
                "reject" => Call::new(OPERATION, runtime, async move { command.reject().await }),
                _ => return Err(unknown(how)),
            })
        };
        raised(py, guard(OPERATION, settle))
    }
}

fn unknown(how: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "command.settle", "there is no such settlement").with("given", how)
}
