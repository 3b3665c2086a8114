//! Calls that take their time.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
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
        let place = Arc::new((Mutex::new(None), Condvar::new()));
        let started = self.start({
            let place = place.clone();
            move |result| {
                *place.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                place.1.notify_one();
            }
        });
        let mut result = place.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            let now = Instant::now();
            if now >= look_at {
                drop(result);
                if interrupted() {
                    started.cancel();
                    return Err(Error::new(ErrorKind::Cancelled, operation, "the caller stopped waiting"));
                }
                look_at = now + LOOK_EVERY;
                result = place.0.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            result = place.1.wait_timeout(result, look_at - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
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

#[cfg(test)]
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
        assert_eq!(late.wait(|| false).unwrap_err().kind(), ErrorKind::Timeout);
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
