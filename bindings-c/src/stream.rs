//! Streams: waited for, asked, or watched through a file descriptor.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{sync::Notify, task::AbortHandle};
use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support::{Call, Pull, Source};

use crate::{call::Patience, engine::Engine};

/// A stream that belongs to a device.
pub(crate) struct Stream<S: Source> {
    operation: &'static str,
    pub(crate) engine: Arc<Engine>,
    pull: Pull<S>,
    watch: Mutex<Option<Watch>>,
}

/// A file descriptor that is readable while there is something to take, and the task that sees to it.
struct Watch {
    flag: Arc<Mutex<Flag>>,
    /// Nothing is left: the task may look for more.
    taken: Arc<Notify>,
    task: AbortHandle,
}

impl<S: Source> Stream<S> {
    pub(crate) fn new(operation: &'static str, engine: Arc<Engine>, source: S) -> Self {
        Self { operation, engine, pull: Pull::new(source), watch: Mutex::new(None) }
    }

    /// The next item, as a call. Whoever stops waiting leaves it to the next who asks.
    pub(crate) fn next(&self, patience: Patience) -> Call<S::Item>
    where
        S::Item: Send + 'static,
    {
        let (operation, pull) = (self.operation, self.pull.clone());
        let watched = self.watch.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Watch::parts);
        patience.call(operation, &self.engine, async move {
            let waiting = Waiting(pull);
            loop {
                let found = match &watched {
                    None => waiting.0.take(),
                    Some((flag, taken)) => take(&waiting.0, flag, taken),
                };
                match found {
                    Some(found) => return some(operation, found),
                    None => waiting.0.ready().await?,
                }
            }
        })
    }

    /// What is there now.
    ///
    /// # Errors
    /// `Timeout` when there is nothing, `Closed` at the end, those of the source.
    pub(crate) fn try_next(&self) -> Result<S::Item> {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match watch.as_ref() {
            Some(watch) => take(&self.pull, &watch.flag, &watch.taken),
            None => self.pull.try_next(),
        };
        match found {
            Some(found) => some(self.operation, found),
            None => Err(Error::new(ErrorKind::Timeout, self.operation, "there is nothing now")),
        }
    }

    /// The file descriptor.
    ///
    /// # Errors
    /// `Internal` when the system has none left; `Unsupported` where there are none.
    pub(crate) fn fd(&self) -> Result<i32> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &*watch {
            return Ok(lock(&watch.flag).fd());
        }
        let flag = Flag::new().map_err(|error| {
            let text = "the system gives no file descriptor";
            Error::new(ErrorKind::Internal, self.operation, text).caused_by(error)
        })?;
        let fd = flag.fd();
        let (flag, taken) = (Arc::new(Mutex::new(flag)), Arc::new(Notify::new()));
        let task = self.engine.handle().spawn(look(self.pull.clone(), flag.clone(), taken.clone()));
        *watch = Some(Watch { flag, taken, task: task.abort_handle() });
        Ok(fd)
    }
}

impl<S: Source> Drop for Stream<S> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner) {
            watch.task.abort();
        }
    }
}

impl Watch {
    fn parts(&self) -> (Arc<Mutex<Flag>>, Arc<Notify>) {
        (self.flag.clone(), self.taken.clone())
    }
}

/// Keeps the flag up while there is something.
async fn look<S: Source>(pull: Pull<S>, flag: Arc<Mutex<Flag>>, taken: Arc<Notify>) {
    loop {
        if pull.ready().await.is_err() {
            return;
        }
        {
            let mut flag = lock(&flag);
            // Somebody may have been faster.
            if !pull.has_something() {
                continue;
            }
            flag.raise();
        }
        taken.notified().await;
    }
}

/// Takes what is there, and lowers the flag when that was all.
fn take<S: Source>(pull: &Pull<S>, flag: &Mutex<Flag>, taken: &Notify) -> Option<Result<Option<S::Item>>> {
    let mut flag = lock(flag);
    let found = pull.take();
    if !pull.has_something() {
        flag.lower();
        taken.notify_one();
    }
    found
}

/// The end of a stream is an error, so that a loop that goes on while it gets something ends there.
fn some<T>(operation: &'static str, found: Result<Option<T>>) -> Result<T> {
    found?.ok_or_else(|| Error::new(ErrorKind::Closed, operation, "the client was closed"))
}

fn lock(flag: &Mutex<Flag>) -> std::sync::MutexGuard<'_, Flag> {
    flag.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the others to look again when somebody stops waiting: the news may have been for him.
struct Waiting<S: Source>(Pull<S>);

impl<S: Source> Drop for Waiting<S> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

#[cfg(unix)]
mod flag {
    use std::{
        io::{self, PipeReader, PipeWriter, Read, Write},
        os::fd::AsRawFd,
    };

    /// A pipe that holds one byte while it is up, so that neither end ever blocks.
    pub(super) struct Flag {
        reader: PipeReader,
        writer: PipeWriter,
        up: bool,
    }

    impl Flag {
        pub(super) fn new() -> io::Result<Self> {
            let (reader, writer) = io::pipe()?;
            Ok(Self { reader, writer, up: false })
        }

        pub(super) fn fd(&self) -> i32 {
            self.reader.as_raw_fd()
        }

        pub(super) fn raise(&mut self) {
            if !self.up {
                self.up = self.writer.write_all(&[1]).is_ok();
            }
        }

        pub(super) fn lower(&mut self) {
            if self.up {
                let _ = self.reader.read(&mut [0]);
                self.up = false;
            }
        }
    }
}

#[cfg(not(unix))]
mod flag {
    use std::io;

    /// Files of this system cannot be waited for as those of others.
    pub(super) enum Flag {}

    impl Flag {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn fd(&self) -> i32 {
            match *self {}
        }

        pub(super) fn raise(&mut self) {
            match *self {}
        }

        pub(super) fn lower(&mut self) {
            match *self {}
        }
    }
}

use flag::Flag;
