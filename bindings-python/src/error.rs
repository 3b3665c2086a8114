//! Errors of the core as exceptions of the package.

use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyList},
};
use std::error::Error as _;
use whimbrel::{Error, ErrorKind, Result};

/// The classes by the names of their kinds, looked up once.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// `result`, its error as an exception.
pub(crate) fn raised<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| exception(py, &error))
}

/// The exception of the class of its kind.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    // Without the package's classes there is still the text.
    make(py, error).map(PyErr::from_value).unwrap_or_else(|_| PyRuntimeError::new_err(error.to_string()))
}

fn make<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let classes = CLASSES.get_or_try_init(py, || {
        let classes = py.import("whimbrel.errors")?.getattr("CLASSES")?;
        Ok::<_, PyErr>(classes.cast_into::<PyDict>()?.unbind())
    })?;
    let classes = classes.bind(py);
    let class = match classes.get_item(error.kind().name())? {
        Some(class) => class,
        None => classes.as_any().get_item(ErrorKind::Internal.name())?,
    };
    let details = PyDict::new(py);
    for (name, value) in error.details() {
        details.set_item(name, value)?;
    }
    let causes = PyList::empty(py);
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.append(next.to_string())?;
        cause = next.source();
    }
    let wait = error.wait_hint().map(|wait| wait.as_secs_f64());
    class.call_method1("_of_native", (error.to_string(), error.operation(), wait, details, causes))
}

/// `InvalidArgument` about what was `given` as `name`.
pub(crate) fn invalid(operation: &'static str, name: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation, format!("{name} {what}"))
}
