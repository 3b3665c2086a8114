//! The service client.

use std::sync::{Arc, Mutex, PoisonError};

use napi::{
    Env,
    bindgen_prelude::{Array, Utf16String},
};
use napi_derive::napi;
use serde_json::json;
use tokio::runtime::Handle;
use whimbrel::{
    Error, ErrorKind, Result,
    service::{FeedbackBatch, FeedbackReader, ServiceClient},
};
use whimbrel_bindings_support::{
    Call, Draft, EventsSettings, Pull, SendSettings, ServiceSettings, document, runtime, settings,
};

use crate::{
    commands::{Taken, taken},
    convert::{boundary, text},
    environment::{Environment, Home, Value},
    events::{Checkpoints, Events},
    registry,
};

/// An open client of a back end.
#[napi]
pub struct Service {
    home: Arc<Home>,
    runtime: Handle,
    service: ServiceClient,
}

#[napi]
impl Environment {
    /// Opens a service client; resolves with a `Service`.
    #[napi(catch_unwind)]
    pub fn connect(
        &self,
        token: f64,
        connection_string: Utf16String,
        options: Utf16String,
    ) -> napi::Result<()> {
        const CONNECT: &str = "service.connect";
        let home = self.home().clone();
        let options = boundary(CONNECT, || {
            let options: ServiceSettings = settings(CONNECT, &text(CONNECT, "options", &options)?)?;
            options.options(&text(CONNECT, "connection string", &connection_string)?)
        })?;
        self.call(CONNECT, token, async move {
            let service = ServiceClient::connect(options).await?;
            Ok(Value::object(Service { home, runtime: runtime()?, service }))
        })
    }
}

#[napi]
impl Service {
    /// Sends a command. `draft` is JSON with what is said about the message, `options` JSON with how to send it. Resolves with a
    /// `Tracked`.
    #[napi(catch_unwind)]
    pub fn send(
        &self,
        token: f64,
        device: Utf16String,
        body: &[u8],
        draft: Utf16String,
        options: Utf16String,
    ) -> napi::Result<()> {
        const SEND: &str = "service.send";
        boundary(SEND, || {
            let device = text(SEND, "device id", &device)?;
            let draft: Draft = settings(SEND, &text(SEND, "options", &draft)?)?;
            let options: SendSettings = settings(SEND, &text(SEND, "options", &options)?)?;
            let message = draft.message(SEND, bytes::Bytes::copy_from_slice(body))?;
            let options = options.options()?;
            let (service, home, runtime) = (self.service.clone(), self.home.clone(), self.runtime.clone());
            self.start(SEND, token, async move {
                let tracked = service.send(&device, message, options).await?;
                Ok(Value::object(Tracked { home, runtime, tracked }))
            });
            Ok(())
        })
    }

    /// Follows a command that was sent before.
    #[napi(catch_unwind)]
    pub fn tracked(&self, device: Utf16String, message_id: Utf16String) -> napi::Result<Tracked> {
        const TRACKED: &str = "service.tracked";
        boundary(TRACKED, || {
            let (device, id) =
                (text(TRACKED, "device id", &device)?, text(TRACKED, "message id", &message_id)?);
            let _entered = self.runtime.enter();
            let tracked = self.service.tracked(&device, &id)?;
            Ok(Tracked { home: self.home.clone(), runtime: self.runtime.clone(), tracked })
        })
    }

    /// Reads feedback.
    #[napi(catch_unwind)]
    pub fn feedback(&self) -> napi::Result<Feedback> {
        boundary("service.feedback", || {
            let _entered = self.runtime.enter();
            let batches = Pull::new(self.service.feedback()?);
            Ok(Feedback { home: self.home.clone(), runtime: self.runtime.clone(), batches })
        })
    }

    /// Reads events; resolves with an `Events`.
    #[napi(catch_unwind)]
    pub fn events(
        &self,
        token: f64,
        options: Utf16String,
        checkpoints: Option<&Checkpoints>,
    ) -> napi::Result<()> {
        const EVENTS: &str = "service.events";
        boundary(EVENTS, || {
            let options: EventsSettings = settings(EVENTS, &text(EVENTS, "options", &options)?)?;
            let checkpoints = checkpoints.map(Checkpoints::kind);
            let (service, home, runtime) = (self.service.clone(), self.home.clone(), self.runtime.clone());
            self.start(EVENTS, token, async move {
                let store = match checkpoints {
                    None => None,
                    Some(kind) => Some(kind.store(&service).await?),
                };
                let reader = options.apply(service.events(), store)?.open().await?;
                Ok(Value::object(Events::new(home, runtime, reader)))
            });
            Ok(())
        })
    }

    /// Asks the registry; see `registry.rs` for the requests. Resolves with JSON.
    #[napi(catch_unwind)]
    pub fn registry(&self, token: f64, request: Utf16String) -> napi::Result<()> {
        boundary("service.registry", || {
            let request = registry::request(&text("service.registry", "request", &request)?)?;
            let registry = self.service.registry();
            self.start("service.registry", token, async move {
                Ok(Value::Text(registry::answer(&registry, request).await?.to_string()))
            });
            Ok(())
        })
    }

    /// The connection string of a device or module, which is given as JSON.
    #[napi(catch_unwind)]
    pub fn connection_string(&self, identity: Utf16String) -> napi::Result<Option<String>> {
        boundary("registry.connection_string", || {
            let identity = text("registry.connection_string", "identity", &identity)?;
            registry::connection_string(&self.service.registry(), &identity)
        })
    }

    /// Closes the client.
    #[napi(catch_unwind)]
    pub fn close(&self, token: f64) -> napi::Result<()> {
        boundary("service.close", || {
            let service = self.service.clone();
            self.start("service.close", token, async move {
                service.close().await;
                Ok(Value::None)
            });
            Ok(())
        })
    }

    fn start(
        &self,
        operation: &'static str,
        token: f64,
        work: impl Future<Output = Result<Value>> + Send + 'static,
    ) {
        self.home.start(token, Call::new(operation, self.runtime.clone(), work));
    }
}

/// A command that is followed.
#[napi]
pub struct Tracked {
    home: Arc<Home>,
    runtime: Handle,
    tracked: whimbrel::service::Tracked,
}

#[napi]
impl Tracked {
    /// The device it is for.
    #[napi(getter, catch_unwind)]
    pub fn device_id(&self) -> &str {
        self.tracked.device()
    }

    /// Its message id.
    #[napi(getter, catch_unwind)]
    pub fn message_id(&self) -> &str {
        self.tracked.message_id()
    }

    /// Resolves with how it ended.
    #[napi(catch_unwind)]
    pub fn outcome(&self, token: f64) {
        let tracked = self.tracked.clone();
        let work = async move {
            let outcome = tracked.outcome().await?;
            Ok(Value::Text(document::command_outcome(outcome).to_owned()))
        };
        self.home.start(token, Call::new("tracked.outcome", self.runtime.clone(), work));
    }
}

/// A reader of feedback.
#[napi]
pub struct Feedback {
    home: Arc<Home>,
    runtime: Handle,
    batches: Pull<FeedbackReader>,
}

#[napi]
impl Feedback {
    /// The next batch: itself, and its records as JSON. Null at the end, undefined when there is none yet.
    #[napi(catch_unwind, ts_return_type = "[Batch, string] | null | undefined")]
    pub fn take<'env>(&self, env: &'env Env) -> napi::Result<Taken<'env>> {
        taken(env, "feedback.next", self.batches.take(), |batch: FeedbackBatch, array: &mut Array<'env>| {
            let records: Vec<_> = batch.records().iter().map(document::feedback).collect();
            let text =
                json!({"records": records, "enqueued_at_ms": batch.enqueued_at().map(document::unix_ms)});
            let batch = Mutex::new(Some(batch));
            array.insert(Batch { home: self.home.clone(), runtime: self.runtime.clone(), batch })?;
            array.insert(text.to_string())
        })
    }

    /// Resolves when there is something to take.
    #[napi(catch_unwind)]
    pub fn ready(&self, token: f64) {
        let batches = self.batches.clone();
        let ready = async move { batches.ready().await.map(|()| Value::None) };
        self.home.start(token, Call::new("feedback.next", self.runtime.clone(), ready));
    }

    /// For who stops waiting.
    #[napi(catch_unwind)]
    pub fn pass_on(&self) {
        self.batches.pass_on();
    }

    /// Stops reading.
    #[napi(catch_unwind)]
    pub fn close(&self, token: f64) {
        let batches = self.batches.clone();
        let close = async move { batches.close().await.map(|()| Value::None) };
        self.home.start(token, Call::new("feedback.close", self.runtime.clone(), close));
    }
}

/// A batch of feedback that was taken.
#[napi]
pub struct Batch {
    home: Arc<Home>,
    runtime: Handle,
    batch: Mutex<Option<FeedbackBatch>>,
}

#[napi]
impl Batch {
    /// Removes the records from the queue.
    #[napi(catch_unwind)]
    pub fn complete(&self, token: f64) -> napi::Result<()> {
        boundary("feedback.complete", || {
            let batch = self.taken_out("feedback.complete")?;
            let work = async move { batch.complete().await.map(|()| Value::None) };
            self.home.start(token, Call::new("feedback.complete", self.runtime.clone(), work));
            Ok(())
        })
    }

    /// Gives the records back.
    #[napi(catch_unwind)]
    pub fn abandon(&self, token: f64) -> napi::Result<()> {
        boundary("feedback.abandon", || {
            let batch = self.taken_out("feedback.abandon")?;
            let work = async move { batch.abandon().await.map(|()| Value::None) };
            self.home.start(token, Call::new("feedback.abandon", self.runtime.clone(), work));
            Ok(())
        })
    }

    fn taken_out(&self, operation: &'static str) -> Result<FeedbackBatch> {
        self.batch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Conflict, operation, "the batch was settled before"))
    }
}
