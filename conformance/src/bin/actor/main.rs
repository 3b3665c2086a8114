//! The Rust actor: does with the core what the driver says; see `conformance/README.md`.
#![forbid(unsafe_code)]

mod arguments;
mod registry;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::{Mutex as Turn, mpsc, oneshot, watch},
};
use whimbrel::{
    Command, ConnectionState, DeviceClient, Inbox, Receipt,
    service::{
        CheckpointStore, Event, EventReader, EventsBuilder, FeedbackBatch, FeedbackReader, FeedbackWanted,
        FileCheckpoints, HubCheckpoints, MemoryCheckpoints, SendOptions, ServiceClient, Tracked,
    },
};
use whimbrel_bindings_support::{document, envelope};

use arguments::{Answer, Args, Failure, device_options, message, position, received, service_options};
use registry::registry;

#[derive(Deserialize)]
struct Request {
    id: u64,
    call: String,
    #[serde(default)]
    on: String,
    #[serde(default, rename = "as")]
    keep: String,
    #[serde(default)]
    args: Args,
}

/// What has a name. What its last call consumes is taken out of its place.
enum Object {
    None,
    Device(DeviceClient),
    States(Turn<(bool, watch::Receiver<ConnectionState>)>),
    Receipt(Receipt),
    Inbox(Inbox),
    Command(Command),
    Service(ServiceClient),
    Tracked(Tracked),
    Feedback(Turn<Option<FeedbackReader>>),
    Batch(Mutex<Option<FeedbackBatch>>),
    Store(Arc<dyn CheckpointStore>),
    Events(Turn<Option<EventReader>>),
    Event(Event),
}

type Objects = Arc<Mutex<HashMap<String, Arc<Object>>>>;

#[tokio::main]
async fn main() {
    let objects = Objects::default();
    let (answers, mut to_write) = mpsc::unbounded_channel::<Value>();
    tokio::spawn(async move {
        let mut output = tokio::io::stdout();
        while let Some(answer) = to_write.recv().await {
            let line = format!("{answer}\n");
            if output.write_all(line.as_bytes()).await.is_err() || output.flush().await.is_err() {
                return;
            }
        }
    });
    let mut running: HashMap<u64, oneshot::Sender<()>> = HashMap::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            eprintln!("not a request: {line}");
            continue;
        };
        let id = request.id;
        if request.call == "cancel" {
            running.retain(|_, call| !call.is_closed());
            drop(request.args.whole("of").ok().and_then(|of| running.remove(&of)));
            let _ = answers.send(json!({"id": id, "ok": {}}));
            continue;
        }
        let (keep, mut cancel) = oneshot::channel::<()>();
        running.insert(id, keep);
        let (objects, answers) = (objects.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = tokio::select! {
                biased;
                answer = perform(&objects, request) => answer,
                _ = &mut cancel => return answers.send(json!({"id": id, "cancelled": true})),
            };
            answers.send(match answer {
                Ok(value) => json!({"id": id, "ok": value}),
                Err(Failure::Whimbrel(error)) => json!({"id": id, "error": envelope(&error)}),
                Err(Failure::Actor(text)) => json!({"id": id, "error": {"kind": "ACTOR", "message": text}}),
            })
        });
    }
}

async fn perform(objects: &Objects, request: Request) -> Answer {
    let Request { call, on, keep, args, .. } = request;
    let object = find(objects, &on).unwrap_or_else(|| Arc::new(Object::None));
    let put = |name: &str, object| {
        objects.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(object));
    };
    let kept = |object: Object, answer: Value| {
        put(&keep, object);
        Ok(answer)
    };
    let nothing = || Ok(json!({}));
    match (call.as_str(), &*object) {
        ("hello", _) => Ok(json!({"language": "Rust"})),
        ("device.open", _) => {
            kept(Object::Device(DeviceClient::open(device_options(&args)?).await?), json!({}))
        }
        ("device.send", Object::Device(device)) => {
            let receipt = device.send(message(&args)?).await?;
            let answer = json!({"message_id": receipt.message_id()});
            kept(Object::Receipt(receipt), answer)
        }
        ("device.send_many", Object::Device(device)) => {
            let all: Vec<Args> = args.is("messages")?;
            let receipts = device.send_all(all.iter().map(message).collect::<Answer<Vec<_>>>()?).await?;
            let answer = json!({"message_ids": receipts.iter().map(Receipt::message_id).collect::<Vec<_>>()});
            for (at, receipt) in receipts.into_iter().enumerate() {
                put(&format!("{keep}.{at}"), Object::Receipt(receipt));
            }
            Ok(answer)
        }
        ("device.receipt", Object::Device(device)) => {
            match device.receipt(&args.text("message_id")?).await? {
                Some(receipt) => kept(Object::Receipt(receipt), json!({"found": true})),
                None => Ok(json!({"found": false})),
            }
        }
        ("device.inbox", Object::Device(device)) => kept(Object::Inbox(device.inbox()), json!({})),
        ("device.account", Object::Device(device)) => Ok(document::account(&device.account())),
        ("device.counters", Object::Device(device)) => Ok(document::counters(&device.counters())),
        ("device.connection", Object::Device(device)) => {
            Ok(document::connection_state(&device.connection().borrow()))
        }
        ("device.states", Object::Device(device)) => {
            kept(Object::States(Turn::new((true, device.connection()))), json!({}))
        }
        ("states.next", Object::States(states)) => {
            let (first, states) = &mut *states.lock().await;
            if !std::mem::take(first) && states.changed().await.is_err() {
                return Ok(json!({"end": true}));
            }
            Ok(document::connection_state(&states.borrow_and_update()))
        }
        ("device.flush", Object::Device(device)) => {
            Ok(json!({"left": device.flush(args.duration("deadline_ms")?).await?}))
        }
        ("device.suspend", Object::Device(device)) => {
            Ok(json!({"left": device.suspend(args.duration("budget_ms")?).await?}))
        }
        ("device.resume", Object::Device(device)) => {
            device.resume().await.map_err(Failure::from).and_then(|()| nothing())
        }
        ("device.close", Object::Device(device)) => {
            device.close().await.map_err(Failure::from).and_then(|()| nothing())
        }
        ("receipt.state", Object::Receipt(receipt)) => Ok(document::receipt_state(&receipt.state())),
        ("receipt.outcome", Object::Receipt(receipt)) => Ok(document::outcome(&receipt.outcome().await?)),
        ("inbox.next", Object::Inbox(inbox)) => match inbox.next().await? {
            None => Ok(json!({"end": true})),
            Some(command) => {
                let also = json!({"sequence": command.sequence(), "delivery_count": command.delivery_count(),
                    "enqueued_at_ms": command.enqueued_at().map(document::unix_ms)});
                let answer = received(command.message(), also);
                kept(Object::Command(command), answer)
            }
        },
        ("command.complete", Object::Command(command)) => {
            command.complete().await.map_err(Failure::from).and_then(|()| nothing())
        }
        ("command.abandon", Object::Command(command)) => {
            command.abandon().await.map_err(Failure::from).and_then(|()| nothing())
        }
        ("command.reject", Object::Command(command)) => {
            command.reject().await.map_err(Failure::from).and_then(|()| nothing())
        }

        ("service.connect", _) => {
            kept(Object::Service(ServiceClient::connect(service_options(&args)?).await?), json!({}))
        }
        ("service.send", Object::Service(service)) => {
            let mut options = SendOptions::default();
            if let Ok(word) = args.text("feedback") {
                let wanted = FeedbackWanted::from_word(&word);
                options = options.feedback(wanted.ok_or_else(|| format!("there is no feedback {word}"))?);
            }
            let tracked = service.send(&args.text("device")?, message(&args)?, options).await?;
            let answer = json!({"message_id": tracked.message_id()});
            kept(Object::Tracked(tracked), answer)
        }
        ("service.tracked", Object::Service(service)) => {
            let tracked = service.tracked(&args.text("device")?, &args.text("message_id")?)?;
            kept(Object::Tracked(tracked), json!({}))
        }
        ("tracked.outcome", Object::Tracked(tracked)) => {
            Ok(json!({"outcome": document::command_outcome(tracked.outcome().await?)}))
        }
        ("service.feedback", Object::Service(service)) => {
            kept(Object::Feedback(Turn::new(Some(service.feedback()?))), json!({}))
        }
        ("feedback.next", Object::Feedback(reader)) => {
            match reader.lock().await.as_mut().ok_or_else(gone)?.next().await? {
                None => Ok(json!({"end": true})),
                Some(batch) => {
                    let records: Vec<_> = batch.records().iter().map(document::feedback).collect();
                    kept(Object::Batch(Mutex::new(Some(batch))), json!({"records": records}))
                }
            }
        }
        ("batch.complete" | "batch.abandon", Object::Batch(batch)) => {
            let batch = batch.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(gone)?;
            if call == "batch.complete" { batch.complete().await } else { batch.abandon().await }?;
            nothing()
        }
        ("feedback.close", Object::Feedback(reader)) => {
            let reader = reader.lock().await.take().ok_or_else(gone)?;
            reader.close().await;
            nothing()
        }
        ("checkpoints.file", _) => {
            kept(Object::Store(Arc::new(FileCheckpoints::open(args.text("folder")?)?)), json!({}))
        }
        ("checkpoints.hub", Object::Service(service)) => {
            kept(Object::Store(Arc::new(HubCheckpoints::new(service))), json!({}))
        }
        ("checkpoints.memory", _) => kept(Object::Store(Arc::new(MemoryCheckpoints::new())), json!({})),
        ("service.events", Object::Service(service)) => {
            let reader = events(objects, service, &args)?.open().await?;
            let answer = json!({"name": reader.name()});
            kept(Object::Events(Turn::new(Some(reader))), answer)
        }
        ("events.next", Object::Events(reader)) => {
            match reader.lock().await.as_mut().ok_or_else(gone)?.next().await? {
                None => Ok(json!({"end": true})),
                Some(event) => {
                    let also = json!({
                        "sequence": event.sequence(), "partition": event.partition(), "offset": event.offset(),
                        "enqueued_at_ms": document::unix_ms(event.enqueued_at()), "source": event.source(),
                        "device_id": event.device_id(), "module_id": event.module_id(),
                        "generation": event.generation(), "auth_method": event.auth_method(),
                    });
                    let answer = received(event.message(), also);
                    kept(Object::Event(event), answer)
                }
            }
        }
        ("event.checkpoint", Object::Event(event)) => {
            event.checkpoint().await.map_err(Failure::from).and_then(|()| nothing())
        }
        ("events.close", Object::Events(reader)) => {
            let reader = reader.lock().await.take().ok_or_else(gone)?;
            reader.close().await;
            nothing()
        }
        ("service.close", Object::Service(service)) => {
            service.close().await;
            nothing()
        }
        (call, Object::Service(service)) => registry(service, call, &args).await,
        _ => Err(Failure::Actor(format!("there is no call {call} on {on:?}"))),
    }
}

fn events(objects: &Objects, service: &ServiceClient, args: &Args) -> Answer<EventsBuilder> {
    let mut to = service.events();
    for name in args.names() {
        to = match name {
            "group" => to.group(args.text(name)?),
            "position" => to.from(position(&args.is(name)?)?),
            "partitions" => to.partitions(args.is::<Vec<u32>>(name)?),
            "prefetch" => to.prefetch(args.is(name)?),
            "ownership_renew_ms" => to.ownership(args.duration(name)?, args.duration("ownership_lasts_ms")?),
            "ownership_lasts_ms" => to,
            "checkpoints" => match find(objects, &args.text(name)?).as_deref() {
                Some(Object::Store(store)) => to.checkpoints(store.clone()),
                _ => return Err(gone().into()),
            },
            _ => return Err(Failure::Actor(format!("there is no option {name}"))),
        };
    }
    Ok(to)
}

fn find(objects: &Objects, name: &str) -> Option<Arc<Object>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

fn gone() -> String {
    "there is no such object any more".to_owned()
}
