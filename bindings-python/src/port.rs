//! The way back to an event loop. Threads of the runtime never take the interpreter's lock: they put results down and write a
//! byte to a socket the loop watches.

use std::sync::{Arc, mpsc};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use pyo3::{PyTraverseError, PyVisit, intern, prelude::*};
use whimbrel::{Error, ErrorKind, Receipt as CoreReceipt, Result};
use whimbrel_bindings_support as support;

use crate::{
    device::Receipt,
    error::{exception, raised},
    turn::Turn,
};

/// Makes the object that is the result of a call.
pub(crate) type Make = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// Something an `asyncio.Future` is told.
pub(crate) struct Completion {
    pub(crate) future: Py<PyAny>,
    pub(crate) answer: Answer,
}

pub(crate) enum Answer {
    Receipt(CoreReceipt),
    Made(Make),
    Failed(Error),
}

/// Where results for one event loop wait.
pub(crate) type Results = Arc<support::Port<Completion>>;

/// The results for one event loop, taken on its thread.
#[pyclass(frozen, weakref)]
pub(crate) struct Port {
    results: support::Bound<Results>,
    #[cfg(unix)]
    signal: Option<Signal>,
}

/// A pair of sockets: a byte in it means that results are waiting.
#[cfg(unix)]
struct Signal {
    reader: UnixStream,
    writer: Arc<UnixStream>,
}

#[pymethods]
impl Port {
    /// For a loop that watches [`Port::fileno`]; with `call`, for one that cannot: then a thread calls `call` when there are
    /// results, and `call` has to have [`Port::drain`] called on the loop's thread.
    #[new]
    fn new(py: Python<'_>, call: Option<Py<PyAny>>) -> PyResult<Self> {
        let made = support::guard("port", || match call {
            Some(call) => Self::calling(call),
            None => Self::signalling(),
        });
        raised(py, made)
    }

    /// The file descriptor that is readable while results are waiting; -1 where there is none.
    fn fileno(&self) -> i32 {
        #[cfg(unix)]
        if let Some(signal) = &self.signal {
            return signal.reader.as_raw_fd();
        }
        -1
    }

    /// Hands some results to their futures; whether more are waiting.
    fn drain(&self, py: Python<'_>) -> PyResult<bool> {
        let results = raised(py, self.results())?;
        let turn = Turn::begin();
        let mut taken = Vec::with_capacity(STEP);
        loop {
            let mut more = results.take(STEP, &mut taken);
            #[cfg(unix)]
            if let Some(signal) = self.signal.as_ref().filter(|_| !more) {
                // In this order: what came after the first look is found by the second one, or has a byte of its own.
                signal.clear();
                more = results.take(STEP - taken.len(), &mut taken);
                if more {
                    signal.set();
                }
            }
            for Completion { future, answer } in taken.drain(..) {
                // A future that cannot be told is no reason not to tell the others.
                if let Err(error) = tell(py, future.bind(py), answer) {
                    error.write_unraisable(py, Some(future.bind(py)));
                }
            }
            if !more || turn.is_over() {
                return Ok(more);
            }
        }
    }

    /// A loop that is gone with results waiting is in a circle: it has this port, which has futures, which have the loop.
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        let Ok(results) = self.results.get() else { return Ok(()) };
        let mut visited = Ok(());
        results.look(|waiting| {
            if visited.is_ok() {
                visited = visit.call(&waiting.future);
            }
        });
        visited
    }

    fn __clear__(&self) {
        if let Ok(results) = self.results.get() {
            let mut gone = Vec::new();
            results.take(usize::MAX, &mut gone);
        }
    }
}

impl Port {
    pub(crate) fn results(&self) -> Result<Results> {
        self.results.get().cloned()
    }

    #[cfg(unix)]
    fn signalling() -> Result<Self> {
        let pair = || {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            Ok(Signal { reader, writer: Arc::new(writer) })
        };
        let signal = pair().map_err(|error: std::io::Error| {
            Error::new(ErrorKind::Internal, "port", "the system gives no sockets").caused_by(error)
        })?;
        let writer = signal.writer.clone();
        let results = Arc::new(support::Port::new(move || send_byte(&writer)));
        Ok(Self { results: support::Bound::new(results), signal: Some(signal) })
    }

    #[cfg(not(unix))]
    fn signalling() -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "port", "event loops cannot watch sockets here"))
    }

    fn calling(call: Py<PyAny>) -> Result<Self> {
        let (wake, woken) = mpsc::channel::<()>();
        let thread = move || {
            // It ends with the port, or with the interpreter.
            while woken.recv().is_ok() {
                let called = Python::try_attach(|py| {
                    if let Err(error) = call.call0(py) {
                        error.write_unraisable(py, None);
                    }
                });
                if called.is_none() {
                    // Its references cannot be given back any more.
                    std::mem::forget(call);
                    return;
                }
            }
        };
        std::thread::Builder::new().name("whimbrel-port".to_owned()).spawn(thread).map_err(|error| {
            Error::new(ErrorKind::Internal, "port", "the system gives no threads").caused_by(error)
        })?;
        let results = Arc::new(support::Port::new(move || {
            // The thread ends before this only with the interpreter.
            let _ = wake.send(());
        }));
        Ok(Self {
            results: support::Bound::new(results),
            #[cfg(unix)]
            signal: None,
        })
    }
}

#[cfg(unix)]
impl Signal {
    fn set(&self) {
        send_byte(&self.writer);
    }

    fn clear(&self) {
        let mut bytes = [0; 64];
        // Nothing to read is fine: whoever made the results has not come to write yet.
        let _ = (&self.reader).read(&mut bytes);
    }
}

#[cfg(unix)]
fn send_byte(writer: &UnixStream) {
    // A full socket is readable, and a closed one belongs to a loop that is gone.
    let _ = (&*writer).write(&[1]);
}

/// Tells a future its result, unless it is done: whoever awaited it has given up.
fn tell(py: Python<'_>, future: &Bound<'_, PyAny>, answer: Answer) -> PyResult<()> {
    let made = match answer {
        Answer::Receipt(receipt) => Bound::new(py, Receipt::new(receipt)).map(Bound::into_any),
        Answer::Made(make) => make(py),
        Answer::Failed(error) => Err(exception(py, &error)),
    };
    let told = match made {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,)),
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),)),
    };
    match told {
        Ok(_) => Ok(()),
        Err(_) if future.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
        Err(error) => Err(error),
    }
}

/// Futures told between two looks at the clock.
const STEP: usize = 8;
