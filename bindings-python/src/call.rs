//! Calls that take their time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pyo3::{IntoPyObjectExt, prelude::*};
use tokio::runtime::Handle;
use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support as support;

use crate::{
    error::{exception, raised},
    port::{Answer, Completion, Make, Port},
};

/// A call that has not been started. An event loop starts it, a thread waits for it; either, once.
#[pyclass(frozen)]
pub(crate) struct Call(Mutex<Option<support::Call<Make>>>);

/// A call an event loop has started.
#[pyclass(frozen)]
pub(crate) struct Started(support::Bound<support::Started>);

impl Call {
    /// `work`, whose result is an object of Python as it is.
    pub(crate) fn new<T>(
        operation: &'static str,
        runtime: Handle,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Self::made(operation, runtime, work, |py, value| value.into_bound_py_any(py))
    }

    /// `work`, whose result `make` makes an object of.
    pub(crate) fn made<T: Send + 'static>(
        operation: &'static str,
        runtime: Handle,
        work: impl Future<Output = Result<T>> + Send + 'static,
        make: impl for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    ) -> Self {
        let call = support::Call::new(operation, runtime, work);
        Self(Mutex::new(Some(call.map(move |value| -> Make { Box::new(move |py| make(py, value)) }))))
    }

    fn take(&self) -> Result<support::Call<Make>> {
        let call = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        call.ok_or_else(|| Error::new(ErrorKind::Conflict, "call", "this call was started before"))
    }
}

#[pymethods]
impl Call {
    /// Starts it; `future`, which belongs to the loop of `port`, gets the result.
    fn start(&self, py: Python<'_>, port: &Port, future: Py<PyAny>) -> PyResult<Started> {
        let start = || {
            let results = port.results()?;
            let call = self.take()?;
            Ok(Started(support::Bound::new(call.start(move |result| {
                let answer = match result {
                    Ok(make) => Answer::Made(make),
                    Err(error) => Answer::Failed(error),
                };
                results.push([Completion { future, answer }]);
            }))))
        };
        raised(py, support::guard("call", start))
    }

    /// Waits for the result on this thread, for a limited time where a limit is given, and as long as no signal handler raises.
    fn wait<'py>(&self, py: Python<'py>, limit_ms: Option<u64>) -> PyResult<Bound<'py, PyAny>> {
        let call = raised(py, self.take())?.within(limit_ms.map(Duration::from_millis));
        let mut interruption = None;
        let result = py.detach(|| {
            call.wait(|| {
                let signals = Python::attach(|py| py.check_signals());
                interruption = signals.err();
                interruption.is_some()
            })
        });
        match (interruption, result) {
            (_, Ok(make)) => make(py),
            (Some(interruption), Err(_)) => Err(interruption),
            (None, Err(error)) => Err(exception(py, &error)),
        }
    }
}

#[pymethods]
impl Started {
    /// Stops waiting.
    fn cancel(&self) {
        // Behind a fork there is nothing to stop.
        if let Ok(started) = self.0.get() {
            started.cancel();
        }
    }
}
