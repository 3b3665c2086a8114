//! `whimbrel._native`: what the Python package hands over to the core, and what it gets back. Private; the package's shell in
//! `python/whimbrel` is what programs import, and holds names, idiom and documentation.
#![deny(unsafe_code)]

mod call;
mod convert;
mod device;
mod error;
mod fields;
mod log;
mod port;
mod registry;
mod service;
mod stream;
mod turn;

use pyo3::prelude::*;

/// The native half of the package `whimbrel`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        call::{Call, Started},
        device::{Batch, Device, Receipt, Receipts},
        fields::Message,
        log::{log_level, start_log},
        port::Port,
        registry::Registry,
        service::{FeedbackBatch, Memory, Service, Tracked},
        stream::{Command, Commands, Connections, Event, Events, Feedbacks},
    };
    use super::{convert, error};
    use pyo3::prelude::*;
    use whimbrel::ErrorKind;
    use whimbrel_bindings_support as support;

    /// What was opened before a fork fails from now on, in the child.
    #[pyfunction]
    fn after_fork() {
        support::after_fork();
    }

    /// Every kind of error: name, code, retry.
    #[pyfunction]
    fn error_kinds() -> Vec<(&'static str, u16, &'static str)> {
        ErrorKind::ALL.iter().map(|kind| (kind.name(), kind.code(), kind.retry().name())).collect()
    }

    /// The names of the options a device client is opened with.
    #[pyfunction]
    fn device_options() -> Vec<&'static str> {
        support::names::<support::DeviceSettings>().to_vec()
    }

    /// The names of the options a service client is made with.
    #[pyfunction]
    fn service_options() -> Vec<&'static str> {
        support::names::<support::ServiceSettings>().to_vec()
    }

    /// The names of the options a reader of events is opened with.
    #[pyfunction]
    fn events_options() -> Vec<&'static str> {
        support::names::<support::EventsSettings>().to_vec()
    }

    /// The names of the options a command is sent with.
    #[pyfunction]
    fn send_options() -> Vec<&'static str> {
        support::names::<support::SendSettings>().to_vec()
    }

    /// The names of what a message may say besides its body, in the order in which they are handed over.
    #[pyfunction]
    fn message_fields() -> Vec<&'static str> {
        convert::FIELDS.to_vec()
    }

    /// Panics, or has a call panic; for tests of what becomes of that.
    #[pyfunction]
    fn panics(py: Python<'_>, later: bool) -> PyResult<super::Call> {
        error::raised(
            py,
            support::guard("test.panic", || match later {
                false => panic!("a panic of a test"),
                true => Ok(super::Call::new("test.panic", support::runtime()?, async move {
                    match later {
                        true => panic!("a panic of a test"),
                        false => Ok(()),
                    }
                })),
            }),
        )
    }
}

use call::Call;
