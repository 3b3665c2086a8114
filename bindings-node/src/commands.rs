//! Commands on the device.

use std::sync::Arc;

use napi::{
    Env,
    bindgen_prelude::{Array, Either3, Null, Uint8ArraySlice, Undefined},
};
use napi_derive::napi;
use tokio::runtime::Handle;
use whimbrel::{Inbox, Result};
use whimbrel_bindings_support::{Call, Pull, document};

use crate::{
    convert::{boundary, head, raised},
    environment::{Home, Value},
};

/// What `take` gives: an array, null at the end, undefined when there is nothing yet.
pub(crate) type Taken<'env> = Either3<Undefined, Null, Array<'env>>;

/// The commands of a device.
#[napi]
pub struct Commands {
    home: Arc<Home>,
    runtime: Handle,
    commands: Pull<Inbox>,
}

impl Commands {
    pub(crate) fn new(home: Arc<Home>, runtime: Handle, inbox: Inbox) -> Self {
        Self { home, runtime, commands: Pull::new(inbox) }
    }
}

#[napi]
impl Commands {
    /// The next command: itself, its body, the rest as JSON. Null at the end, undefined when there is none yet.
    #[napi(catch_unwind, ts_return_type = "[Command, Uint8Array, string] | null | undefined")]
    pub fn take<'env>(&self, env: &'env Env) -> napi::Result<Taken<'env>> {
        taken(env, "inbox.next", self.commands.take(), |command, array| {
            let mut fields = head(command.message());
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("sequence".into(), command.sequence().map(|number| number.to_string()).into());
                fields.insert("enqueuedAt".into(), command.enqueued_at().map(document::unix_ms).into());
                fields.insert("deliveryCount".into(), command.delivery_count().into());
            }
            let body = command.body().clone();
            let (home, runtime) = (self.home.clone(), self.runtime.clone());
            array.insert(Command { home, runtime, command: Arc::new(command) })?;
            array.insert(Uint8ArraySlice::copy_from(env, body)?)?;
            array.insert(fields.to_string())
        })
    }

    /// Resolves when there is something to take.
    #[napi(catch_unwind)]
    pub fn ready(&self, token: f64) {
        let commands = self.commands.clone();
        let ready = async move { commands.ready().await.map(|()| Value::None) };
        self.home.start(token, Call::new("inbox.next", self.runtime.clone(), ready));
    }

    /// For who stops waiting.
    #[napi(catch_unwind)]
    pub fn pass_on(&self) {
        self.commands.pass_on();
    }
}

/// A command that was taken.
#[napi]
pub struct Command {
    home: Arc<Home>,
    runtime: Handle,
    command: Arc<whimbrel::Command>,
}

#[napi]
impl Command {
    /// It was dealt with.
    #[napi(catch_unwind)]
    pub fn complete(&self, token: f64) {
        let command = self.command.clone();
        self.start("command.complete", token, async move { command.complete().await });
    }

    /// Not now.
    #[napi(catch_unwind)]
    pub fn abandon(&self, token: f64) {
        let command = self.command.clone();
        self.start("command.abandon", token, async move { command.abandon().await });
    }

    /// Never.
    #[napi(catch_unwind)]
    pub fn reject(&self, token: f64) {
        let command = self.command.clone();
        self.start("command.reject", token, async move { command.reject().await });
    }

    fn start(
        &self,
        operation: &'static str,
        token: f64,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let work = async move { work.await.map(|()| Value::None) };
        self.home.start(token, Call::new(operation, self.runtime.clone(), work));
    }
}

/// What was taken from a stream, as `fill` puts it into an array.
pub(crate) fn taken<'env, T>(
    env: &'env Env,
    operation: &'static str,
    taken: Option<Result<Option<T>>>,
    fill: impl FnOnce(T, &mut Array<'env>) -> napi::Result<()>,
) -> napi::Result<Taken<'env>> {
    match taken {
        None => Ok(Either3::A(())),
        Some(Ok(None)) => Ok(Either3::B(Null)),
        Some(Err(error)) => Err(raised(&error)),
        Some(Ok(Some(item))) => {
            let mut filled = Ok(());
            let mut array = env.create_array(0)?;
            boundary(operation, || {
                filled = fill(item, &mut array);
                Ok(())
            })?;
            filled?;
            Ok(Either3::C(array))
        }
    }
}
