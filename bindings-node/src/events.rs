//! Reading events.

use std::{path::PathBuf, sync::Arc};

use napi::{
    Env,
    bindgen_prelude::{Uint8ArraySlice, Utf16String},
};
use napi_derive::napi;
use serde_json::Value as Json;
use tokio::runtime::Handle;
use whimbrel::{
    Result,
    service::{
        CheckpointStore, Event, EventReader, FileCheckpoints, HubCheckpoints, MemoryCheckpoints,
        ServiceClient,
    },
};
use whimbrel_bindings_support::{Call, Pull, document};

use crate::{
    commands::{Taken, taken},
    convert::{boundary, head, text},
    environment::{Home, Value, blocking},
};

/// Where checkpoints are kept.
#[napi]
pub struct Checkpoints(Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    File(PathBuf),
    Hub,
    Memory(MemoryCheckpoints),
}

#[napi]
impl Checkpoints {
    /// In files of this folder, which is opened with the reader.
    #[napi(factory, catch_unwind)]
    pub fn file(folder: Utf16String) -> napi::Result<Self> {
        boundary("checkpoints.file", || {
            Ok(Self(Kind::File(text("checkpoints.file", "folder", &folder)?.into())))
        })
    }

    /// On the hub.
    #[napi(factory, catch_unwind)]
    pub fn hub() -> Self {
        Self(Kind::Hub)
    }

    /// In the memory of this process.
    #[napi(factory, catch_unwind)]
    pub fn memory() -> Self {
        Self(Kind::Memory(MemoryCheckpoints::new()))
    }
}

impl Checkpoints {
    pub(crate) fn kind(&self) -> Kind {
        self.0.clone()
    }
}

impl Kind {
    pub(crate) async fn store(self, service: &ServiceClient) -> Result<Arc<dyn CheckpointStore>> {
        Ok(match self {
            Self::File(folder) => {
                Arc::new(blocking("service.events", move || FileCheckpoints::open(folder)).await?)
            }
            Self::Hub => Arc::new(HubCheckpoints::new(service)),
            Self::Memory(store) => Arc::new(store),
        })
    }
}

/// A reader of events.
#[napi]
pub struct Events {
    home: Arc<Home>,
    runtime: Handle,
    reader: String,
    events: Pull<EventReader>,
}

impl Events {
    pub(crate) fn new(home: Arc<Home>, runtime: Handle, reader: EventReader) -> Self {
        Self { home, runtime, reader: reader.name().to_owned(), events: Pull::new(reader) }
    }
}

#[napi]
impl Events {
    /// What this reader is called.
    #[napi(getter, catch_unwind)]
    pub fn reader(&self) -> &str {
        &self.reader
    }

    /// The next event: itself, its body, the rest as JSON. Null at the end, undefined when there is none yet.
    #[napi(catch_unwind, ts_return_type = "[StoredEvent, Uint8Array, string] | null | undefined")]
    pub fn take<'env>(&self, env: &'env Env) -> napi::Result<Taken<'env>> {
        taken(env, "events.next", self.events.take(), |event, array| {
            let (body, text) = (event.message().body().clone(), fields(&event).to_string());
            let (home, runtime) = (self.home.clone(), self.runtime.clone());
            array.insert(StoredEvent { home, runtime, event: Arc::new(event) })?;
            array.insert(Uint8ArraySlice::copy_from(env, body)?)?;
            array.insert(text)
        })
    }

    /// Resolves when there is something to take.
    #[napi(catch_unwind)]
    pub fn ready(&self, token: f64) {
        let events = self.events.clone();
        let ready = async move { events.ready().await.map(|()| Value::None) };
        self.home.start(token, Call::new("events.next", self.runtime.clone(), ready));
    }

    /// For who stops waiting.
    #[napi(catch_unwind)]
    pub fn pass_on(&self) {
        self.events.pass_on();
    }

    /// Stops reading.
    #[napi(catch_unwind)]
    pub fn close(&self, token: f64) {
        let events = self.events.clone();
        let close = async move { events.close().await.map(|()| Value::None) };
        self.home.start(token, Call::new("events.close", self.runtime.clone(), close));
    }
}

/// An event that was taken.
#[napi]
pub struct StoredEvent {
    home: Arc<Home>,
    runtime: Handle,
    event: Arc<Event>,
}

#[napi]
impl StoredEvent {
    /// Stores that this event, and all before it in its partition, were dealt with.
    #[napi(catch_unwind)]
    pub fn checkpoint(&self, token: f64) {
        let event = self.event.clone();
        let work = async move { event.checkpoint().await.map(|()| Value::None) };
        self.home.start(token, Call::new("event.checkpoint", self.runtime.clone(), work));
    }
}

fn fields(event: &Event) -> Json {
    let mut fields = head(event.message());
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("deviceId".into(), event.device_id().into());
        fields.insert("moduleId".into(), event.module_id().into());
        fields.insert("generation".into(), event.generation().into());
        fields.insert("authMethod".into(), event.auth_method().into());
        fields.insert("source".into(), event.source().into());
        fields.insert("partition".into(), event.partition().into());
        fields.insert("sequence".into(), event.sequence().to_string().into());
        fields.insert("offset".into(), event.offset().into());
        fields.insert("enqueuedAt".into(), document::unix_ms(event.enqueued_at()).into());
    }
    fields
}
