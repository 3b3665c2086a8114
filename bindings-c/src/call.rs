//! Calls that wait: on the thread that makes them, or with a callback.

use std::{sync::Arc, time::Duration};

use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support::Call;

use crate::{
    cancel::{self, Token, whimbrel_cancel_token},
    engine::Engine,
};

/// Waits for as long as it takes.
pub const WHIMBREL_FOREVER: i64 = -1;

/// How long a call may wait, and what stops it.
pub(crate) struct Patience {
    limit: Option<Duration>,
    token: Option<Token>,
}

impl Patience {
    /// From the parameters of a call: a negative time is no limit.
    ///
    /// # Safety
    /// As [`cancel::read`].
    pub(crate) unsafe fn read(
        operation: &'static str,
        timeout_ms: i64,
        token: *const whimbrel_cancel_token,
    ) -> Result<Self> {
        // SAFETY: promised by the caller.
        let token = unsafe { cancel::read(operation, token)? };
        Ok(Self { limit: u64::try_from(timeout_ms).ok().map(Duration::from_millis), token })
    }

    /// For as long as it takes.
    pub(crate) fn endless() -> Self {
        Self { limit: None, token: None }
    }

    /// Whether nothing can stop the call but its end.
    pub(crate) fn is_endless(&self) -> bool {
        self.limit.is_none() && self.token.is_none()
    }

    /// `work` as a call on the device's thread, which is there at least until it ends.
    pub(crate) fn call<T: Send + 'static>(
        self,
        operation: &'static str,
        engine: &Arc<Engine>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Call<T> {
        let kept = engine.clone();
        let work = cancel::unless_cancelled(operation, self.token, work);
        let call = Call::new(operation, engine.handle().clone(), async move {
            let done = work.await;
            drop(kept);
            done
        });
        call.within(self.limit)
    }
}

/// Waits for a call on this thread.
///
/// # Errors
/// Those of the call; `Unsupported` on the device's own thread, which would wait for itself.
pub(crate) fn join<T: Send + 'static>(operation: &'static str, call: Call<T>) -> Result<T> {
    may_wait(operation)?;
    call.join()
}

/// Whether this thread is one that may wait.
///
/// # Errors
/// `Unsupported` on the device's own thread.
pub(crate) fn may_wait(operation: &'static str) -> Result<()> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Ok(());
    }
    let text = "a callback may not wait, for it would hold up the device, or itself; use the call that ends in _async";
    Err(Error::new(ErrorKind::Unsupported, operation, text))
}
