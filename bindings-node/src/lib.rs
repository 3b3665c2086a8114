//! The native half of the npm package `whimbrel`: conversion only. What programs see is written in TypeScript, in `ts/`.
//!
//! Everything that takes its time is started with a token, and its result comes back under that token: the environment's
//! function is called when there are results, and takes them with [`environment::Environment::drain`].
#![allow(unreachable_pub, reason = "the generator takes only what is pub")]
#![cfg_attr(
    test,
    allow(dead_code, reason = "under test the generator exports nothing; linters look at that all the same")
)]

mod commands;
mod convert;
mod device;
mod environment;
mod events;
mod log;
mod registry;
mod service;
mod table;

mod private {
    //! What only the package's own tests use.

    use napi_derive::napi;

    use crate::{
        convert::boundary,
        environment::{Environment, Value},
    };

    /// Panics, to test that nothing but an error comes of it.
    #[napi(catch_unwind)]
    pub fn panic_now(text: String) -> napi::Result<()> {
        boundary("test.panic", || panic!("{text}"))
    }

    #[napi]
    impl Environment {
        /// Panics on a thread of the runtime.
        #[napi(catch_unwind)]
        pub fn panic_later(&self, token: f64, text: String) -> napi::Result<()> {
            self.call("test.panic", token, async move {
                if text.is_empty() { Ok(Value::None) } else { panic!("{text}") }
            })
        }
    }
}
