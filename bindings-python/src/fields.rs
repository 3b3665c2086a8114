//! Messages, in both directions, as objects.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use whimbrel_bindings_support::{document, guard};

use crate::{convert, error::raised};

/// A message to be sent, complete and copied.
#[pyclass(frozen, subclass)]
pub(crate) struct Message(pub(crate) whimbrel::Message);

#[pymethods]
impl Message {
    #[new]
    fn new(body: &Bound<'_, PyAny>, fields: Option<&Bound<'_, PyTuple>>) -> PyResult<Self> {
        let made = guard("message", || convert::message("message", body, fields));
        raised(body.py(), made).map(Self)
    }

    /// All it says: the body, and the values of the fields by name.
    fn said<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyDict>)> {
        let message = &self.0;
        let said = said(py, message)?;
        said.set_item("lane", message.lane().name())?;
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        said.set_item("expires_in_ms", message.time_to_live().map(ms))?;
        Ok((PyBytes::new(py, message.body()), said))
    }
}

/// The properties of a message, application's and system's, by name.
pub(crate) fn said<'py>(py: Python<'py>, message: &whimbrel::Message) -> PyResult<Bound<'py, PyDict>> {
    let said = PyDict::new(py);
    let properties = PyDict::new(py);
    for (name, value) in message.properties().iter() {
        properties.set_item(name, value)?;
    }
    said.set_item("properties", properties)?;
    let system = message.system();
    for (name, value) in [
        ("message_id", &system.message_id),
        ("correlation_id", &system.correlation_id),
        ("user_id", &system.user_id),
        ("content_type", &system.content_type),
        ("content_encoding", &system.content_encoding),
        ("message_schema", &system.message_schema),
        ("output_name", &system.output_name),
        ("interface_id", &system.interface_id),
        ("component", &system.component),
    ] {
        said.set_item(name, value)?;
    }
    said.set_item("creation_time_ms", system.creation_time.map(document::unix_ms))?;
    Ok(said)
}
