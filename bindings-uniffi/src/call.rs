//! Calls that take their time, for whoever awaits them with whatever executor.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support::{Call, Lease, Started, guarded};

use crate::Failure;

/// Ends waiting, for languages that do not drop what they do not wait for any more. One may be given to several calls.
#[derive(Debug, uniffi::Object)]
pub struct CancelToken(watch::Sender<bool>);

#[uniffi::export]
impl CancelToken {
    /// A token that was not cancelled.
    #[uniffi::constructor]
    #[allow(clippy::new_without_default, reason = "the generator wants a constructor")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(false)))
    }

    /// Ends the waiting of every call that was given this token, and of those that will be: they fail with `Cancelled`.
    /// Cancelling twice is fine.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

/// A token that may be there.
pub(crate) type Cancel = Option<Arc<CancelToken>>;

/// Starts `work` on the runtime, which stays for as long as it takes, and waits for it. Who stops waiting drops the work.
pub(crate) async fn run<T: Send + 'static>(
    operation: &'static str,
    cancel: Cancel,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    let (answer, answered) = oneshot::channel();
    let _dropped_with_me = CancelOnDrop(call(operation, work)?.start(|result| {
        // Nobody waits any more: what came of it is dropped with it.
        let _ = answer.send(result);
    }));
    wait(operation, cancel, async { answered.await.unwrap_or_else(|_| Err(ended(operation))) }).await
}

/// As [`run`], but who stops waiting stops nothing: the work goes on to its end. `unwanted` gets what came of it too late.
pub(crate) async fn run_through<T, F>(
    operation: &'static str,
    cancel: Cancel,
    work: impl Future<Output = Result<T>> + Send + 'static,
    unwanted: impl FnOnce(T) -> F + Send + 'static,
) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let through = async move {
        if let Err(Ok(late)) = answer.send(guarded(operation, work).await) {
            unwanted(late).await;
        }
        Ok(())
    };
    call(operation, through)?.start(drop);
    wait(operation, cancel, async { answered.await.unwrap_or_else(|_| Err(ended(operation))) }).await
}

/// Does `work` on the runtime without keeping that from ending; `None` when it ended first. Who stops waiting drops the work.
///
/// # Errors
/// `Internal` when the system gives no threads.
pub(crate) async fn run_while_it_lasts<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Option<Result<T>>> {
    let (answer, answered) = oneshot::channel();
    let lease = Lease::take()?;
    let started = Call::new(operation, lease.handle().clone(), work).start(|result| {
        let _ = answer.send(result);
    });
    drop(lease);
    let _dropped_with_me = CancelOnDrop(started);
    Ok(answered.await.ok())
}

/// Waits for `work`, which needs no runtime, on the caller's executor.
pub(crate) async fn wait<T>(
    operation: &'static str,
    cancel: Cancel,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Failure> {
    let work = guarded(operation, work);
    let Some(token) = cancel else { return Ok(work.await?) };
    let mut cancelled = token.0.subscribe();
    tokio::select! {
        // What is there already is not lost to a token that is cancelled at the same time.
        biased;
        done = work => Ok(done?),
        _ = cancelled.wait_for(|cancelled| *cancelled) => {
            Err(Error::new(ErrorKind::Cancelled, operation, "the caller stopped waiting").into())
        }
    }
}

/// Waits for `work` on this thread, which must be none of the runtime.
pub(crate) fn block<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    Ok(call(operation, work)?.wait(|| false)?)
}

fn call<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Call<T>> {
    let lease = Lease::take()?;
    let runtime = lease.handle().clone();
    Ok(Call::new(operation, runtime, async move {
        let done = work.await;
        drop(lease);
        done
    }))
}

fn ended(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the work was given up")
}

struct CancelOnDrop(Started);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
