//! Stops what waits.

use std::sync::Arc;

use tokio::sync::watch;
use whimbrel::{Error, ErrorKind, Result};

use crate::{
    border::{self, boundary},
    error::whimbrel_status,
};

/// Stops calls that wait: give it to as many as are to stop together, and cancel it from any thread. Once cancelled it stays so.
pub struct whimbrel_cancel_token(Token);

/// What a call keeps of it, so that the program may free its token at any time.
#[derive(Clone)]
pub(crate) struct Token(Arc<watch::Sender<bool>>);

/// Makes a token.
///
/// @param[out] out The token; free it with whimbrel_cancel_token_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_cancel_token_new(out: *mut *mut whimbrel_cancel_token) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give("cancel_token.new", out, || {
            Ok(whimbrel_cancel_token(Token(Arc::new(watch::Sender::new(false)))))
        })
    }
}

/// Stops all calls that have this token, now and later: they fail with WHIMBREL_STATUS_CANCELLED unless they are just done. What
/// they waited for goes on. Never blocks. Cancelling twice is fine.
///
/// @param token The token.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_cancel_token_cancel(
    token: *const whimbrel_cancel_token,
) -> whimbrel_status {
    const OPERATION: &str = "cancel_token.cancel";
    boundary(OPERATION, || {
        // SAFETY: promised by the program.
        let token = unsafe { border::borrow(OPERATION, "token", token)? };
        token.0.0.send_replace(true);
        Ok(())
    })
}

/// Frees a token and sets the variable to NULL. Calls that have it go on; they cannot be cancelled any more.
///
/// @param token Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_cancel_token_free(token: *mut *mut whimbrel_cancel_token) {
    // SAFETY: promised by the program.
    unsafe { border::release(token) }
}

/// The token a call was given, if it was given one.
///
/// # Safety
/// As [`border::borrow`].
pub(crate) unsafe fn read(
    operation: &'static str,
    token: *const whimbrel_cancel_token,
) -> Result<Option<Token>> {
    if token.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { border::borrow(operation, "cancel", token) }.map(|token| Some(token.0.clone()))
}

/// `work`, unless it is cancelled first. It is begun in any case.
pub(crate) async fn unless_cancelled<T>(
    operation: &'static str,
    token: Option<Token>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(token) = token else { return work.await };
    let mut cancelled = token.0.subscribe();
    tokio::select! {
        biased;
        done = work => done,
        // The sender is held here, so this resolves when it is cancelled and not before.
        _ = cancelled.wait_for(|cancelled| *cancelled) => {
            Err(Error::new(ErrorKind::Cancelled, operation, "the caller stopped waiting"))
        }
    }
}
