//! Events: positions, checkpoints over restarts, readers that share the partitions, a hub that restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinHandle;
use whimbrel::{
    ErrorKind,
    service::{
        CheckpointStore, Event, EventReader, FileCheckpoints, HubCheckpoints, Position, ServiceClient,
        ServiceOptions,
    },
};

use super::{World, soon, unique};

fn body(event: &Event) -> String {
    String::from_utf8(event.message().body().to_vec()).unwrap()
}

async fn next(reader: &mut EventReader) -> Event {
    soon("an event", reader.next()).await.unwrap().unwrap()
}

async fn bodies(reader: &mut EventReader, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        bodies.push(body(&next(reader).await));
    }
    bodies
}

/// Nothing more comes for a while.
async fn quiet(reader: &mut EventReader) {
    let more = tokio::time::timeout(Duration::from_millis(200), reader.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn reading_begins_where_it_is_told() {
    let world = World::new().await;
    let service = world.service().await;
    let mut places = Vec::new();
    for number in 0..5 {
        places.push(world.store("d1", &number.to_string()).await);
        // Times of arrival are told to the millisecond.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let partition = places[0].partition;
    let open = async |position: Position| {
        service.events().partitions([partition]).from(position).open().await.unwrap()
    };
    let mut reader = open(Position::Beginning).await;
    let mut all = Vec::new();
    for number in 0..5_u64 {
        let event = next(&mut reader).await;
        assert_eq!((body(&event), event.sequence()), (number.to_string(), number));
        all.push(event);
    }
    let event = &all[2];
    assert_eq!((event.device_id(), event.module_id(), event.partition()), ("d1", None, partition));
    assert_eq!(event.generation(), Some("1"));
    assert!(event.auth_method().unwrap().contains("\"scope\":\"device\""));
    assert_eq!(event.source(), Some("Telemetry"));
    assert_eq!(event.message().properties().get("room"), Some("attic"));
    let from = [
        (Position::Sequence(3), 3..5),
        (Position::Offset(event.offset().to_owned()), 2..5),
        (Position::Time(event.enqueued_at()), 2..5),
        (Position::End, 5..6),
        (Position::Sequence(99), 99..100),
    ];
    let mut readers = Vec::new();
    for (position, expected) in from {
        readers.push((open(position.clone()).await, expected, position));
    }
    world.store("d1", "5").await;
    for (mut reader, expected, position) in readers {
        if expected.start == 99 {
            quiet(&mut reader).await;
            continue;
        }
        let expected: Vec<String> = (expected.start..6).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&mut reader, expected.len()).await, expected, "{position:?}");
        quiet(&mut reader).await;
        reader.close().await;
    }
    let error = service.events().group("nobody").open().await;
    let error = match error {
        Err(error) => error,
        Ok(mut reader) => soon("an error", reader.next()).await.unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    service.close().await;
}

#[tokio::test]
async fn a_program_goes_on_behind_its_checkpoints_whatever_keeps_them() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    for at_the_hub in [false, true] {
        let tag = unique();
        for number in 0..40 {
            world.store(&format!("d{}", number % 8), &format!("{tag}-{number}")).await;
        }
        let mut seen = Vec::new();
        // Three programs, one after the other, the hub being restarted in between.
        for run in 0..3 {
            let service = world.service().await;
            let events =
                service.events().group("$Default").ownership(Duration::from_secs(1), Duration::from_secs(8));
            let events = match at_the_hub {
                true => events.checkpoints(HubCheckpoints::new(&service)),
                false => events.checkpoints(FileCheckpoints::open(folder.path()).unwrap()),
            };
            let mut reader = events.open().await.unwrap();
            let count = if run == 2 { usize::MAX } else { 13 };
            for _ in 0..count {
                let Ok(event) = tokio::time::timeout(Duration::from_secs(3), reader.next()).await else {
                    break;
                };
                let event = event.unwrap().unwrap();
                event.checkpoint().await.unwrap();
                seen.push(body(&event));
            }
            reader.close().await;
            service.close().await;
            world.restart().await;
        }
        let mine: Vec<String> = (0..40).map(|number| format!("{tag}-{number}")).collect();
        let seen: Vec<String> =
            seen.into_iter().filter(|body| body.starts_with(&format!("{tag}-"))).collect();
        let once: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(once.len(), mine.len(), "nothing is missed");
        assert_eq!(seen.len(), mine.len(), "nothing comes twice: each was checkpointed");
    }
}

/// A reader in a task, and the events it was handed.
struct Program {
    service: ServiceClient,
    name: String,
    seen: Arc<Mutex<Vec<(u32, u64)>>>,
    task: JoinHandle<EventReader>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Program {
    async fn start(options: ServiceOptions) -> Self {
        let service = ServiceClient::connect(options).await.unwrap();
        let mut reader = service
            .events()
            .checkpoints(HubCheckpoints::new(&service))
            .ownership(Duration::from_millis(300), Duration::from_secs(2))
            .open()
            .await
            .unwrap();
        let seen: Arc<Mutex<Vec<(u32, u64)>>> = Arc::default();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let name = reader.name().to_owned();
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    _ = &mut stopped => return reader,
                    event = reader.next() => event,
                };
                // While the hub restarts its checkpoints cannot be reached; the reader goes on by itself.
                let Ok(Some(event)) = event else { continue };
                shared.lock().unwrap().push((event.partition(), event.sequence()));
                if event.sequence() % 5 == 0 {
                    let _ = event.checkpoint().await;
                }
            }
        });
        Self { service, name, seen, task, stop }
    }

    fn seen(&self) -> Vec<(u32, u64)> {
        self.seen.lock().unwrap().clone()
    }

    async fn stop(self) -> Vec<(u32, u64)> {
        let seen = self.seen();
        let _ = self.stop.send(());
        self.task.await.unwrap().close().await;
        self.service.close().await;
        seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_share_the_log_over_coming_going_and_a_restart_of_the_hub() {
    let mut world = World::new().await;
    let watcher = world.service().await;
    let store = HubCheckpoints::new(&watcher);
    let shares = async |programs: &[&Program], expected: &[usize]| {
        let even = async {
            loop {
                let owners = store.ownerships("$Default").await.unwrap_or_default();
                let mut now: Vec<usize> = programs
                    .iter()
                    .map(|program| {
                        let live = owners.iter().filter(|row| !row.expires_in.is_zero());
                        live.filter(|row| row.owner == program.name).count()
                    })
                    .collect();
                now.sort_unstable();
                if now == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon(&format!("shares of {expected:?}"), even).await;
    };
    let mut stored: BTreeSet<(u32, u64)> = BTreeSet::new();
    let mut write = async |world: &World, count: u64| {
        for number in 0..count {
            let place = world.store(&format!("d{}", number % 16), "x").await;
            stored.insert((place.partition, place.sequence.unwrap()));
        }
    };

    let one = Program::start(world.options()).await;
    shares(&[&one], &[4]).await;
    write(&world, 60).await;
    let two = Program::start(world.options()).await;
    shares(&[&one, &two], &[2, 2]).await;
    write(&world, 60).await;
    let three = Program::start(world.options()).await;
    shares(&[&one, &two, &three], &[1, 1, 2]).await;
    write(&world, 60).await;
    world.restart().await;
    write(&world, 60).await;
    let first = one.stop().await;
    shares(&[&two, &three], &[2, 2]).await;
    write(&world, 60).await;

    let all = async {
        loop {
            let seen: BTreeSet<(u32, u64)> =
                first.iter().copied().chain(two.seen()).chain(three.seen()).collect();
            if seen == stored {
                return;
            }
            assert!(seen.is_subset(&stored));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("every event", all).await;
    // Within a reader, and a stretch of a partition that it had, events come in order and none is left out.
    for seen in [two.seen(), three.seen()] {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (partition, sequence) in seen {
            if let Some(last) = last.insert(partition, sequence) {
                assert!(sequence <= last + 1, "partition {partition}: {last}, then {sequence}");
            }
        }
    }
    two.stop().await;
    three.stop().await;
    watcher.close().await;
}

#[tokio::test]
async fn a_reader_at_the_end_misses_nothing_while_the_hub_is_away() {
    let mut world = World::new().await;
    let service = world.service().await;
    world.store("d1", "before").await;
    let mut reader = service.events().from(Position::End).open().await.unwrap();
    world.restart().await;
    world.store("d1", "after").await;
    assert_eq!(bodies(&mut reader, 1).await, ["after"]);
    world.amqp.cut();
    world.store("d1", "later").await;
    assert_eq!(bodies(&mut reader, 1).await, ["later"]);
    quiet(&mut reader).await;
    service.close().await;
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn over_tls_and_in_a_websocket() {
    let world = World::new().await;
    world.store("d1", "x").await;
    let hub = world.hub();
    let https = format!("https://localhost:{}", hub.https_addr().unwrap().port());
    let encrypted = format!("amqps://localhost:{}", hub.amqps_addr().unwrap().port());
    for (server, http) in [
        (encrypted, https),
        (format!("ws://{}", hub.http_addr().unwrap()), format!("http://{}", hub.http_addr().unwrap())),
    ] {
        let options = world.options().server(server).http_server(http);
        let service = ServiceClient::connect(options).await.unwrap();
        let events = service.events().checkpoints(HubCheckpoints::new(&service));
        let mut reader = events.open().await.unwrap();
        let event = next(&mut reader).await;
        assert_eq!(body(&event), "x");
        reader.close().await;
        service.close().await;
    }
}
