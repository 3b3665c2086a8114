//! The device client.

use std::{
    cell::{Cell, RefCell},
    mem,
    sync::Arc,
    time::Duration,
};

use napi::{
    Env,
    bindgen_prelude::{Array, Either3, Float64ArraySlice, Null, Undefined, Utf16String},
};
use napi_derive::napi;
use serde_json::json;
use tokio::runtime::Handle;
use whimbrel::{DeviceClient, Error, ErrorKind, Outcome, Receipt, ReceiptKey, ReceiptState, Result};
use whimbrel_bindings_support::{
    Call, ConnectionStates, DeviceSettings, Draft, Pull, Sends, document, runtime, settings,
};

use crate::{
    commands::Commands,
    convert::{self, Whole, boundary, exact, invalid, ms, optional_text, text},
    environment::{Completion, Environment, Home, Value, blocking, exact_pair},
};

/// An open client of a device.
#[napi]
pub struct Device {
    home: Arc<Home>,
    runtime: Handle,
    device: DeviceClient,
    place: Place,
    closed: Cell<bool>,
}

#[napi]
impl Environment {
    /// Opens a device client; resolves with a `Device`.
    #[napi(catch_unwind)]
    pub fn open(&self, token: f64, connection_string: Utf16String, options: Utf16String) -> napi::Result<()> {
        const OPEN: &str = "device.open";
        let home = self.home().clone();
        let options = boundary(OPEN, || {
            let options: DeviceSettings = settings(OPEN, &text(OPEN, "options", &options)?)?;
            options.options(&text(OPEN, "connection string", &connection_string)?)
        })?;
        self.call(OPEN, token, async move {
            let device = DeviceClient::open(options).await?;
            let runtime = runtime()?;
            Ok(Value::Object(Box::new(move |env| {
                let place = Place::new(Arc::new(sends(&home, &device, &runtime)));
                napi::bindgen_prelude::ToNapiValue::into_unknown(
                    Device { home, runtime, device, place, closed: Cell::new(false) },
                    env,
                )
            })))
        })
    }
}

#[napi]
impl Device {
    /// The number `send` and `sendWith` know this client by, on this thread.
    #[napi(getter, catch_unwind)]
    pub fn place(&self) -> u32 {
        self.place.0
    }

    /// Takes many messages in, all or none. `drafts` is an array with what is said about each of them besides its body, or null.
    /// Resolves with place and sequence for each, and with those that have ended already as JSON: index, id and outcome.
    #[napi(catch_unwind)]
    pub fn send_many(&self, token: f64, bodies: Array<'_>, drafts: Option<Utf16String>) -> napi::Result<()> {
        const SEND: &str = "device.send_all";
        let count = bodies.len();
        let mut messages = Vec::with_capacity(count as usize);
        boundary(SEND, || {
            let mut drafts: Vec<Option<Draft>> = match drafts {
                None => Vec::new(),
                Some(drafts) => drafts_of(SEND, &text(SEND, "options", &drafts)?)?,
            };
            drafts.resize(count as usize, None);
            for (index, draft) in (0..count).zip(drafts) {
                let body = bodies.get::<&[u8]>(index).ok().flatten();
                let body =
                    body.ok_or_else(|| invalid(SEND, "a body is no Uint8Array").with("index", index))?;
                let body = bytes::Bytes::copy_from_slice(body);
                let message = draft.unwrap_or_default().message(SEND, body);
                messages.push(message.map_err(|error| error.with("index", index))?);
            }
            let device = self.device.clone();
            self.start(SEND, token, async move {
                let receipts = device.send_all(messages).await?;
                Ok(Value::Object(Box::new(move |env| many(env, &receipts))))
            });
            Ok(())
        })
    }

    /// Resolves with place and sequence of the message with this id, with JSON when it has ended, or with nothing.
    #[napi(catch_unwind)]
    pub fn receipt(&self, token: f64, message_id: Utf16String) -> napi::Result<()> {
        const RECEIPT: &str = "device.receipt";
        boundary(RECEIPT, || {
            let (device, id) = (self.device.clone(), text(RECEIPT, "message id", &message_id)?);
            self.start(RECEIPT, token, async move {
                Ok(match device.receipt(&id).await? {
                    None => Value::None,
                    Some(receipt) => match numbers(&receipt) {
                        Some(numbers) => Value::Pair(numbers),
                        None => Value::Text(ended(&receipt)),
                    },
                })
            });
            Ok(())
        })
    }

    /// The message id that was made for this message.
    #[napi(catch_unwind)]
    pub fn message_id(&self, place: f64, sequence: f64) -> String {
        self.receipt_at(place, sequence).message_id().to_owned()
    }

    /// Where the message is, as JSON.
    #[napi(catch_unwind)]
    pub fn state(&self, place: f64, sequence: f64) -> String {
        exact(document::receipt_state(&self.receipt_at(place, sequence).state())).to_string()
    }

    /// Resolves with how the message ended: partition and sequence where it was delivered, -1 for what the hub did not tell;
    /// else JSON.
    #[napi(catch_unwind)]
    pub fn outcome(&self, token: f64, place: f64, sequence: f64) -> napi::Result<()> {
        let receipt = self.receipt_at(place, sequence);
        boundary("receipt.outcome", || {
            self.start("receipt.outcome", token, async move { Ok(outcome(&receipt.outcome().await?)) });
            Ok(())
        })
    }

    /// The commands for this device.
    #[napi(catch_unwind)]
    pub fn inbox(&self) -> napi::Result<Commands> {
        boundary("device.inbox", || {
            let _entered = self.runtime.enter();
            Ok(Commands::new(self.home.clone(), self.runtime.clone(), self.device.inbox()))
        })
    }

    /// What the link is doing, as JSON.
    #[napi(catch_unwind)]
    pub fn connection(&self) -> String {
        document::connection_state(&self.device.connection().borrow()).to_string()
    }

    /// What the link is doing, now and whenever it changes.
    #[napi(catch_unwind)]
    pub fn connection_changes(&self) -> Changes {
        let states = Pull::new(ConnectionStates::new(self.device.connection()));
        Changes { home: self.home.clone(), runtime: self.runtime.clone(), states }
    }

    /// The account, as JSON.
    #[napi(catch_unwind)]
    pub fn account(&self) -> String {
        document::account(&self.device.account()).to_string()
    }

    /// Resolves with the figures, as JSON. They may be read from the disk.
    #[napi(catch_unwind)]
    pub fn counters(&self, token: f64) -> napi::Result<()> {
        boundary("device.counters", || {
            let device = self.device.clone();
            self.start("device.counters", token, async move {
                let counters = blocking("device.counters", move || Ok(device.counters())).await?;
                Ok(Value::Text(document::counters(&counters).to_string()))
            });
            Ok(())
        })
    }

    /// Resolves with how many messages are still queued.
    #[napi(catch_unwind)]
    pub fn flush(&self, token: f64, deadline: Whole) -> napi::Result<()> {
        const FLUSH: &str = "device.flush";
        boundary(FLUSH, || {
            let deadline = Duration::from_millis(ms(FLUSH, "deadline", deadline)?);
            let device = self.device.clone();
            self.start(FLUSH, token, async move { Ok(Value::Number(device.flush(deadline).await? as f64)) });
            Ok(())
        })
    }

    /// Closes the client.
    #[napi(catch_unwind)]
    pub fn close(&self, token: f64) -> napi::Result<()> {
        boundary("device.close", || {
            let device = self.device.clone();
            self.closed.set(true);
            self.start("device.close", token, async move { device.close().await.map(|()| Value::None) });
            Ok(())
        })
    }

    fn receipt_at(&self, place: f64, sequence: f64) -> Receipt {
        self.device.receipt_at(ReceiptKey::from_parts([place as u64, sequence as u64]))
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

impl Drop for Device {
    fn drop(&mut self) {
        // A client that the program forgot goes on delivering until the process ends. One whose thread ends is closed.
        if !self.closed.get() && !self.home.is_ending() {
            mem::forget(self.device.clone());
        }
    }
}

/// Takes a message in; place and sequence come under `token`, or JSON when it has ended already.
#[napi(catch_unwind)]
pub fn send(place: u32, token: f64, body: &[u8]) -> napi::Result<()> {
    boundary(SEND, || take_in(place, token, Draft::default(), body))
}

/// [`send`] with what is said about the message. `properties` are names and values by turns, `more` is JSON with all that has
/// no argument of its own.
#[napi(catch_unwind)]
#[allow(clippy::too_many_arguments, reason = "an object would cost more than the message")]
pub fn send_with(
    place: u32,
    token: f64,
    body: &[u8],
    lane: Option<Utf16String>,
    properties: Option<Vec<Utf16String>>,
    message_id: Option<Utf16String>,
    content_type: Option<Utf16String>,
    content_encoding: Option<Utf16String>,
    expires_in: Option<Whole>,
    more: Option<Utf16String>,
) -> napi::Result<()> {
    boundary(SEND, || {
        let more = more.map(|more| settings(SEND, &text(SEND, "options", &more)?)).transpose()?;
        let draft = Draft {
            lane: optional_text(SEND, "lane", lane)?,
            properties: pairs(SEND, properties.as_deref().unwrap_or_default())?,
            message_id: optional_text(SEND, "message id", message_id)?,
            content_type: optional_text(SEND, "content type", content_type)?,
            content_encoding: optional_text(SEND, "content encoding", content_encoding)?,
            expires_in_ms: expires_in.map(|time| ms(SEND, "expires in", time)).transpose()?,
            ..more.unwrap_or_default()
        };
        take_in(place, token, draft, body)
    })
}

/// The changes of a device's connection.
#[napi]
pub struct Changes {
    home: Arc<Home>,
    runtime: Handle,
    states: Pull<ConnectionStates>,
}

#[napi]
impl Changes {
    /// The next state as JSON; null at the end, undefined when there is none yet.
    #[napi(catch_unwind)]
    pub fn take(&self) -> napi::Result<Either3<Undefined, Null, String>> {
        boundary("device.connection", || {
            Ok(match self.states.take().transpose()? {
                None => Either3::A(()),
                Some(None) => Either3::B(Null),
                Some(Some(state)) => Either3::C(document::connection_state(&state).to_string()),
            })
        })
    }

    /// Resolves when there is something to take.
    #[napi(catch_unwind)]
    pub fn ready(&self, token: f64) {
        let states = self.states.clone();
        let ready = async move { states.ready().await.map(|()| Value::None) };
        self.home.start(token, Call::new("device.connection", self.runtime.clone(), ready));
    }

    /// For who stops waiting.
    #[napi(catch_unwind)]
    pub fn pass_on(&self) {
        self.states.pass_on();
    }
}

thread_local! {
    /// The clients of this thread. Calls of methods of classes look the object up in a table of the whole process, behind a
    /// lock, which would be a good part of what a send costs.
    static CLIENTS: RefCell<Vec<Option<Arc<Sends<f64>>>>> = const { RefCell::new(Vec::new()) };
}

/// Where a client is in [`CLIENTS`]. Freed with the client's object.
struct Place(u32);

impl Place {
    fn new(sends: Arc<Sends<f64>>) -> Self {
        CLIENTS.with_borrow_mut(|clients| {
            let free = clients.iter().position(Option::is_none).unwrap_or(clients.len());
            match clients.get_mut(free) {
                Some(place) => *place = Some(sends),
                None => clients.push(Some(sends)),
            }
            Self(free as u32)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // At the end of the thread the table may have gone before.
        let taken =
            CLIENTS.try_with(|clients| clients.borrow_mut().get_mut(self.0 as usize).and_then(Option::take));
        drop(taken);
    }
}

fn take_in(place: u32, token: f64, draft: Draft, body: &[u8]) -> Result<()> {
    let message = draft.message(SEND, bytes::Bytes::copy_from_slice(body))?;
    CLIENTS.with_borrow(|clients| match clients.get(place as usize) {
        Some(Some(sends)) => sends.send(token, message),
        _ => Err(Error::new(ErrorKind::Closed, SEND, "the client was opened on another thread, or is gone")),
    })
}

fn sends(home: &Arc<Home>, device: &DeviceClient, runtime: &Handle) -> Sends<f64> {
    let home = home.clone();
    Sends::new(device.clone(), runtime, move |batch| {
        let completions = batch.into_iter().map(|(token, result)| match result {
            Ok(receipt) => match numbers(&receipt) {
                Some(numbers) => Completion::Pair(token, numbers),
                None => Completion::Sent(token, Ok(ended(&receipt))),
            },
            Err(error) => Completion::Sent(token, Err(error)),
        });
        home.push(completions);
    })
}

/// What a receipt comes down to, unless it has ended.
fn numbers(receipt: &Receipt) -> Option<[f64; 2]> {
    exact_pair(receipt.key()?.to_parts())
}

/// A receipt that has ended, as JSON.
fn ended(receipt: &Receipt) -> String {
    let outcome = match receipt.state() {
        ReceiptState::Settled(outcome) => convert::outcome(&outcome),
        _ => serde_json::Value::Null,
    };
    json!({"id": receipt.message_id(), "outcome": outcome}).to_string()
}

fn outcome(outcome: &Outcome) -> Value {
    if let Outcome::Delivered { partition, sequence } = outcome
        && let Some([_, exact]) = exact_pair([0, sequence.unwrap_or_default()])
    {
        return Value::Pair([partition.map_or(-1.0, f64::from), sequence.map_or(-1.0, |_| exact)]);
    }
    Value::Text(convert::outcome(outcome).to_string())
}

fn many<'env>(env: &'env Env, receipts: &[Receipt]) -> napi::Result<napi::bindgen_prelude::Unknown<'env>> {
    let mut keys = Vec::with_capacity(receipts.len() * 2);
    let mut others = Vec::new();
    for (index, receipt) in receipts.iter().enumerate() {
        match numbers(receipt) {
            Some(numbers) => keys.extend(numbers),
            None => {
                keys.extend([-1.0, -1.0]);
                others.push(format!("[{index},{}]", ended(receipt)));
            }
        }
    }
    let mut array = env.create_array(0)?;
    array.insert(Float64ArraySlice::copy_from(env, keys)?)?;
    array.insert(format!("[{}]", others.join(",")))?;
    napi::bindgen_prelude::ToNapiValue::into_unknown(array, env)
}

fn pairs(operation: &'static str, texts: &[Utf16String]) -> Result<Vec<(String, String)>> {
    let (pairs, _) = texts.as_chunks::<2>();
    let pair = |[name, value]: &[Utf16String; 2]| {
        Ok((text(operation, "property name", name)?, text(operation, "property value", value)?))
    };
    pairs.iter().map(pair).collect()
}

fn drafts_of(operation: &'static str, json: &str) -> Result<Vec<Option<Draft>>> {
    #[derive(serde::Deserialize)]
    struct Drafts {
        messages: Vec<Option<Draft>>,
    }
    settings::<Drafts>(operation, json).map(|drafts| drafts.messages)
}

const SEND: &str = "device.send";
