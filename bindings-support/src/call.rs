//! Calls that take their time.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle};
use whimbrel::{Error, ErrorKind, Result};

use crate::guarded;

/// A call that has not been started: what to do, on which runtime. A language that has an event loop starts it with
/// [`Call::start`], one that has none waits for it with [`Call::wait`].
pub struct Call<T> {
    operation: &'static str,
    runtime: Handle,
    work: futures_util::future::BoxFuture<'static, Result<T>>,
}

/// A call that was started. Dropping it changes nothing; [`Started::cancel`] drops its future.
#[derive(Clone, Debug)]
pub struct Started(AbortHandle);

impl<T: Send + 'static> Call<T> {
    /// `work` as a call of `operation`; nothing happens yet.
    pub fn new(
        operation: &'static str,
        runtime: Handle,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Self {
        Self { operation, runtime, work: Box::pin(work) }
    }

    /// The same call with its result turned into something else, on the runtime.
    pub fn map<U: Send + 'static>(self, turn: impl FnOnce(T) -> U + Send + 'static) -> Call<U> {
        let Self { operation, runtime, work } = self;
        Call { operation, runtime, work: Box::pin(async move { work.await.map(turn) }) }
    }

    /// The same call that waits for `limit` at most, where there is one; then it fails with `Timeout`, and what it waited for
    /// goes on.
    #[must_use]
    pub fn within(self, limit: Option<Duration>) -> Self {
        let (Some(limit), operation, runtime) = (limit, self.operation, self.runtime.clone()) else {
            return self;
        };
        let work = self.work;
        Self::new(operation, runtime, async move {
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let text = "the time given for waiting has passed; what was waited for goes on";
                Err(Error::new(ErrorKind::Timeout, operation, text))
            })
        })
    }

    /// Starts it; `done` gets the result on a thread of the runtime, unless it is cancelled first.
    pub fn start(self, done: impl FnOnce(Result<T>) + Send + 'static) -> Started {
        let Self { operation, runtime, work } = self;
        let task = runtime.spawn(async move { done(guarded(operation, work).await) });
        Started(task.abort_handle())
    }

    /// Waits for the result on this thread, which must not be one of the runtime. `interrupted` is asked ten times a second;
    /// when it says so, the future is dropped and the error is `Cancelled`.
    ///
    /// # Errors
    /// Those of the work; `Cancelled`.
    pub fn wait(self, mut interrupted: impl FnMut() -> bool) -> Result<T> {
        let operation = self.operation;
        let (started, result) = self.start_here();
        loop {
            match result.recv_timeout(LOOK_EVERY) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(runtime_gone(operation)),
                Err(RecvTimeoutError::Timeout) if interrupted() => {
                    started.cancel();
                    return Err(Error::new(ErrorKind::Cancelled, operation, "the caller stopped waiting"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// [`Call::wait`] for those who are never interrupted: the thread sleeps until the result is there.
    ///
    /// # Errors
    /// Those of the work.
    pub fn join(self) -> Result<T> {
        let operation = self.operation;
        let (_, result) = self.start_here();
        result.recv().unwrap_or_else(|_| Err(runtime_gone(operation)))
    }

    fn start_here(self) -> (Started, Receiver<Result<T>>) {
        let (sender, result) = mpsc::sync_channel(1);
        // The receiver is gone when the thread has stopped waiting.
        let started = self.start(move |done| drop(sender.try_send(done)));
        (started, result)
    }
}

/// The future was dropped with its runtime, and nobody will ever answer.
fn runtime_gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the runtime has ended")
}

impl Started {
    /// Stops waiting: the future is dropped at its next await, and its result, if it has one by then, is not told.
    pub fn cancel(&self) {
        self.0.abort();
    }
}

impl<T> std::fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// How often a thread that waits asks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[cfg(all(test, feature = "shared-runtime"))]
mod tests {
    use super::*;
    use crate::runtime;

    #[test]
    fn a_thread_gets_the_result_the_error_the_panic_or_gives_up() {
        let call = |work| Call::new("test", runtime().unwrap(), work);
        let done: std::pin::Pin<Box<dyn Future<Output = Result<i32>> + Send>> = Box::pin(async { Ok(7) });
        assert_eq!(call(done).map(|number| number + 1).wait(|| false).unwrap(), 8);
        let panics = call(Box::pin(async { panic!("oh") })).wait(|| false).unwrap_err();
        assert_eq!(panics.kind(), ErrorKind::Internal);
        let given_up = call(Box::pin(std::future::pending())).wait(|| true).unwrap_err();
        assert_eq!(given_up.kind(), ErrorKind::Cancelled);
        let late = call(Box::pin(std::future::pending())).within(Some(Duration::from_millis(1)));
        assert_eq!(late.join().unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn nobody_waits_for_a_runtime_that_has_ended() {
        let ending = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let call = |handle: &Handle| Call::new("test", handle.clone(), std::future::pending::<Result<()>>());
        let handle = ending.handle().clone();
        let before = std::thread::spawn({
            let handle = handle.clone();
            move || call(&handle).wait(|| false)
        });
        drop(ending);
        assert_eq!(before.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(call(&handle).join().unwrap_err().kind(), ErrorKind::Closed);
    }

    #[test]
    fn a_cancelled_call_says_nothing_more() {
        let (sender, told) = std::sync::mpsc::channel::<Result<()>>();
        let call = Call::new("test", runtime().unwrap(), std::future::pending());
        let started = call.start(move |result| sender.send(result).unwrap());
        started.cancel();
        assert!(told.recv().is_err(), "the sender was dropped with the future");
    }
}
