//! The log of the core, told to Python by a thread of its own.

use pyo3::prelude::*;
use tracing::Level;
use whimbrel_bindings_support as support;

/// Has `deliver` called with every record from now on: level, target, text, how many were lost before. It answers with the
/// level that is wanted. Does nothing when somebody gets the records already.
#[pyfunction]
pub(crate) fn start_log(py: Python<'_>, deliver: Py<PyAny>) -> PyResult<()> {
    let Some(records) = py.detach(support::logs) else { return Ok(()) };
    let thread = move || {
        for record in records {
            let told = Python::try_attach(|py| {
                let support::LogRecord { level, target, message, lost } = record;
                match deliver
                    .call1(py, (rank(level), target, message, lost))
                    .and_then(|wanted| wanted.extract(py))
                {
                    Ok(wanted) => log_level(wanted),
                    Err(error) => error.write_unraisable(py, None),
                }
            });
            if told.is_none() {
                break;
            }
        }
        // The interpreter is gone, and takes nothing back.
        std::mem::forget(deliver);
    };
    std::thread::Builder::new().name("whimbrel-log".to_owned()).spawn(thread)?;
    Ok(())
}

/// What is recorded from now on: a level of Python's logging.
#[pyfunction]
pub(crate) fn log_level(wanted: u32) {
    support::set_log_level(match wanted {
        0..=5 => Some(Level::TRACE),
        6..=10 => Some(Level::DEBUG),
        11..=20 => Some(Level::INFO),
        21..=30 => Some(Level::WARN),
        31..=40 => Some(Level::ERROR),
        _ => None,
    });
}

/// The level as Python's logging has it.
fn rank(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}
