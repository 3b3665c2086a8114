//! No panic crosses into another language: it becomes an `Internal` error with its text.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use whimbrel::{Error, ErrorKind, Result};

/// Does `work`; a panic in it is an error of `operation`.
///
/// # Errors
/// Those of `work`; `Internal` for a panic.
pub fn guard<R>(operation: &'static str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(operation, &*panic)))
}

/// [`guard`] for what is awaited.
///
/// # Errors
/// As there.
pub async fn guarded<R>(operation: &'static str, work: impl Future<Output = Result<R>>) -> Result<R> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panicked(operation, &*panic)))
}

fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(operation, text, "a defect in Whimbrel; please report it");
    Error::new(ErrorKind::Internal, operation, "a defect in Whimbrel; please report it with the text")
        .with("panic", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_text() {
        let number = 7;
        let errors = [
            guard::<()>("a.b", || panic!("plain")).unwrap_err(),
            guard::<()>("a.b", || panic!("made of {number}")).unwrap_err(),
            guarded::<()>("a.b", async { panic!("plain") }).await.unwrap_err(),
        ];
        for (error, text) in errors.iter().zip(["plain", "made of 7", "plain"]) {
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Internal, "a.b"));
            assert!(error.details().contains(&("panic", text.to_owned())), "{error}");
        }
        assert_eq!(guard("a.b", || Ok(1)).unwrap(), 1);
    }
}
