//! An event log for tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
#![allow(dead_code)] // Each test file uses its part.

use std::{ops::Deref, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use whimbrel::Message;
use whimbrel_hub::{
    access::Admitted,
    events::{Event, EventOptions, Events, NewEvent, Position, Retention},
    store::{Embedded, Store, StoreOptions},
};

/// Where a test keeps its log.
pub(crate) enum Place {
    Folder(TempDir),
    Memory,
}

impl Place {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    /// Another, empty place of the same kind.
    pub(crate) fn next(&self) -> Self {
        match self {
            Self::Folder(_) => Self::folder(),
            Self::Memory => Self::Memory,
        }
    }
}

/// An open log. Its own upkeep never removes anything: tests do that themselves.
pub(crate) struct Log {
    pub(crate) events: Events,
    pub(crate) store: Arc<dyn Store>,
}

impl Deref for Log {
    type Target = Events;

    fn deref(&self) -> &Events {
        &self.events
    }
}

impl Log {
    pub(crate) fn open(place: &Place, options: StoreOptions) -> Self {
        match place {
            Place::Folder(folder) => Self::open_in(folder.path(), options),
            Place::Memory => Self::start(Embedded::open(&options).unwrap()),
        }
    }

    pub(crate) fn open_in(folder: &Path, options: StoreOptions) -> Self {
        Self::start(Embedded::open(&StoreOptions { folder: Some(folder.to_owned()), ..options }).unwrap())
    }

    pub(crate) fn start(store: Arc<dyn Store>) -> Self {
        let retention = Retention { time: Duration::MAX, bytes: u64::MAX };
        let events = Events::start(Arc::clone(&store), EventOptions { retention });
        Self { events, store }
    }

    /// Stores one event, durably.
    pub(crate) async fn send(&self, device: &str, body: &str) -> u64 {
        self.send_all(device, &[body.to_owned()]).await[0]
    }

    /// Stores events as one batch, durably.
    pub(crate) async fn send_all(&self, device: &str, bodies: &[String]) -> Vec<u64> {
        let sender = sender(device);
        let messages: Vec<Message> = bodies.iter().map(|body| text(body)).collect();
        let batch: Vec<NewEvent<'_>> =
            messages.iter().map(|message| NewEvent { sender: &sender, message, origin: None }).collect();
        let mut places = Vec::new();
        let ticket = self.append(&batch, &mut places).unwrap();
        self.durable(ticket).await.unwrap();
        places.into_iter().map(|place| place.sequence.unwrap()).collect()
    }
}

pub(crate) fn sender(device: &str) -> Admitted {
    Admitted {
        device: device.into(),
        module: None,
        generation: "1".into(),
        auth_method: r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#
            .into(),
        expires_at: None,
    }
}

pub(crate) fn text(body: &str) -> Message {
    Message::telemetry(body.to_owned())
}

pub(crate) fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| String::from_utf8(event.message().unwrap().body().to_vec()).unwrap();
    events.iter().map(text).collect()
}

/// Everything that is there now.
pub(crate) async fn all(events: &Events, partition: u32, from: Position) -> Vec<Event> {
    let mut reader = events.reader(partition, from).await.unwrap();
    let mut out = Vec::new();
    loop {
        let known = out.len();
        reader.ready(97, &mut out).await.unwrap();
        if out.len() == known {
            return out;
        }
    }
}
