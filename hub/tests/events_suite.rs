//! What the event log promises, against each engine.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod log_support;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use log_support::{Log, all, sender, text, texts};
use whimbrel::{ErrorKind, Lane, Message};
use whimbrel_hub::{
    access::Admitted,
    events::{Event, Events, NewEvent, Origin, Place, Position, ReadLimit, Retention},
    store::StoreOptions,
};

macro_rules! suite {
    ($($test:ident)*) => {
        mod in_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::log_support::Place::folder()).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::log_support::Place::Memory).await;
            })*
        }
    };
}

suite! {
    numbers_rise_without_gaps
    everything_comes_back
    reading_starts_where_it_is_told
    resends_are_stored_once
    a_new_generation_starts_afresh
    old_outboxes_are_forgotten_one_by_one
    a_reader_waits_for_its_own_partition
    dropping_a_read_loses_nothing
    reads_are_bounded_in_events_and_bytes
    readers_at_the_end_and_far_behind_see_the_same
    what_cannot_be_stored_changes_nothing
    groups_and_their_positions
    retention_by_bytes
    retention_by_time
    closing_ends_everything
    many_senders_at_once
}

async fn numbers_rise_without_gaps(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let senders: Vec<Admitted> = (0..20).map(|index| sender(&format!("d{index}"))).collect();
    let mut next = HashMap::new();
    for round in 0..10 {
        let messages: Vec<Message> = (0..20).map(|index| text(&format!("{round}.{index}"))).collect();
        let batch: Vec<NewEvent<'_>> = std::iter::zip(&senders, &messages)
            .map(|(sender, message)| NewEvent { sender, message, origin: None })
            .collect();
        let mut places = Vec::new();
        let ticket = log.append(&batch, &mut places).unwrap();
        log.durable(ticket).await.unwrap();
        for (place, sender) in std::iter::zip(&places, &senders) {
            assert_eq!(place.partition, log.partition_of(&sender.device));
            let expected = next.entry(place.partition).or_insert(0);
            assert_eq!(place.sequence, Some(*expected));
            *expected += 1;
        }
    }
    assert!(next.len() == 4, "20 devices are spread over all partitions: {next:?}");

    let mut offsets = Vec::new();
    for state in log.partitions() {
        let events = all(&log, state.partition, Position::Beginning).await;
        assert_eq!((state.first, state.next), (0, next[&state.partition]));
        assert_eq!(state.last_offset, events.last().map(|event| event.offset));
        assert_eq!(state.last_enqueued_at, events.last().map(|event| event.enqueued_at));
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (0..state.next).collect::<Vec<_>>());
        assert!(events.is_sorted_by(|a, b| a.offset < b.offset && a.enqueued_at <= b.enqueued_at));
        assert!(events.iter().all(|event| log.partition_of(&event.device) == state.partition));
        offsets.extend(events.iter().map(|event| event.offset));
    }
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 200, "no two events share an offset");
}

async fn everything_comes_back(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let message = Message::alert(vec![0, 159, 146, 150])
        .property("room", "attic")
        .property("", "ü")
        .message_id("m-1")
        .content_type("application/json")
        .creation_time(UNIX_EPOCH + Duration::from_millis(1_234_567));
    let by_module = Admitted {
        module: Some("m".into()),
        auth_method: r#"{"scope":"something new"}"#.into(),
        ..sender("d1")
    };
    let origin = Origin { outbox: "box", lane: Lane::Alert, number: u64::MAX };
    let before = SystemTime::now() - Duration::from_millis(1);
    let batch = [
        NewEvent { sender: &by_module, message: &message, origin: Some(origin) },
        NewEvent { sender: &sender("d1"), message: &Message::telemetry(""), origin: None },
    ];
    let ticket = log.append(&batch, &mut Vec::new()).unwrap();
    log.durable(ticket).await.unwrap();

    let events = all(&log, log.partition_of("d1"), Position::Beginning).await;
    let [first, second] = &events[..] else { panic!("{events:?}") };
    assert_eq!(first.message().unwrap(), message);
    assert_eq!(first.module.as_deref(), Some("m"));
    assert_eq!(&*first.auth_method, r#"{"scope":"something new"}"#);
    assert_eq!(second.message().unwrap(), Message::telemetry(""));
    assert_eq!(second.module, None);
    assert_eq!(second.auth_method, sender("d1").auth_method);
    for event in [first, second] {
        assert_eq!((&*event.device, &*event.generation), ("d1", "1"));
        assert!(before <= event.enqueued_at && event.enqueued_at <= SystemTime::now());
    }
}

async fn reading_starts_where_it_is_told(place: log_support::Place) {
    // With and without the newest events in memory.
    for tail_bytes in [0, 16 << 20] {
        let log = Log::open(&place.next(), StoreOptions { tail_bytes, ..StoreOptions::default() });
        let partition = log.partition_of("d1");
        for index in 0..30 {
            log.send("d1", &format!("{index}")).await;
            log.send("d2", "other").await;
            log.send("d3", "other").await;
        }
        let events = all(&log, partition, Position::Beginning).await;
        let from = async |position| texts(&all(&log, partition, position).await);
        let mine = |events: &[Event]| texts(events);
        assert_eq!(from(Position::Beginning).await, mine(&events));
        assert_eq!(from(Position::End).await, [""; 0]);
        for (index, event) in events.iter().enumerate() {
            assert_eq!(from(Position::Sequence(event.sequence)).await, mine(&events[index..]));
            assert_eq!(from(Position::Offset(event.offset)).await, mine(&events[index..]));
            assert_eq!(from(Position::Offset(event.offset + 1)).await, mine(&events[index + 1..]));
            let at = event.enqueued_at;
            let later = events.partition_point(|event| event.enqueued_at < at);
            assert_eq!(from(Position::Time(at)).await, mine(&events[later..]));
            let after = events.partition_point(|event| event.enqueued_at <= at);
            assert_eq!(from(Position::Time(at + Duration::from_micros(1))).await, mine(&events[after..]));
        }
        let beyond = events.len() as u64 + 1;
        let mut waiting = log.reader(partition, Position::Sequence(beyond)).await.unwrap();
        let mut out = Vec::new();
        waiting.ready(10, &mut out).await.unwrap();
        assert!(out.is_empty());
        log.send("d1", "before").await;
        log.send("d1", "wanted").await;
        waiting.next(10, &mut out).await.unwrap();
        assert_eq!(texts(&out), ["wanted"]);

        let missing = log.reader(4, Position::Beginning).await;
        assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
}

async fn resends_are_stored_once(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let d1 = sender("d1");
    let send = |outbox: &str, lane: Lane, numbers: &[u64]| -> Vec<Option<u64>> {
        let messages: Vec<Message> = numbers.iter().map(|number| text(&format!("{number}"))).collect();
        let batch: Vec<NewEvent<'_>> = std::iter::zip(numbers, &messages)
            .map(|(number, message)| {
                let origin = Some(Origin { outbox, lane, number: *number });
                NewEvent { sender: &d1, message, origin }
            })
            .collect();
        let mut places = Vec::new();
        log.append(&batch, &mut places).unwrap();
        assert!(places.iter().all(|place| place.partition == log.partition_of("d1")));
        places.into_iter().map(|Place { sequence, .. }| sequence).collect()
    };
    use Lane::{Alert, Telemetry};
    assert_eq!(send("a", Telemetry, &[1, 2, 5]), [Some(0), Some(1), Some(2)]);
    assert_eq!(send("a", Telemetry, &[2, 5, 6]), [None, None, Some(3)]);
    assert_eq!(send("a", Telemetry, &[1, 2, 5, 6]), [None; 4]);
    // Within one batch, too.
    assert_eq!(send("a", Telemetry, &[7, 7, 8, 7]), [Some(4), None, Some(5), None]);
    // Lanes and outboxes count for themselves.
    assert_eq!(send("a", Alert, &[1, 2]), [Some(6), Some(7)]);
    assert_eq!(send("b", Telemetry, &[0, 1]), [Some(8), Some(9)]);
    assert_eq!(send("b", Telemetry, &[0, 1, 2]), [None, None, Some(10)]);
    // Another device with the same outbox id.
    let other = sender("d2");
    let origin = Origin { outbox: "a", lane: Telemetry, number: 1 };
    let mut places = Vec::new();
    log.append(&[NewEvent { sender: &other, message: &text("x"), origin: Some(origin) }], &mut places)
        .unwrap();
    assert!(places[0].sequence.is_some());
    // Who offers no origin is never taken for a resend.
    for _ in 0..3 {
        log.send("d1", "same").await;
    }
    let stored = all(&log, log.partition_of("d1"), Position::Beginning).await;
    let stored = texts(&stored.into_iter().filter(|event| &*event.device == "d1").collect::<Vec<_>>());
    assert_eq!(stored[..11], ["1", "2", "5", "6", "7", "8", "1", "2", "0", "1", "2"]);
    assert_eq!(stored[11..], ["same"; 3]);
}

async fn a_new_generation_starts_afresh(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let (first, second) = (sender("d1"), Admitted { generation: "2".into(), ..sender("d1") });
    let send = |sender: &Admitted, number| {
        let origin = Some(Origin { outbox: "a", lane: Lane::Telemetry, number });
        let mut places = Vec::new();
        log.append(&[NewEvent { sender, message: &text("x"), origin }], &mut places).unwrap();
        places[0].sequence.is_some()
    };
    assert!(send(&first, 10));
    assert!(!send(&first, 10));
    assert!(send(&second, 1));
    assert!(!send(&second, 1));
    // The last words of a connection that is about to be closed do not disturb the new one.
    assert!(!send(&first, 10));
    assert!(!send(&second, 1));
}

async fn old_outboxes_are_forgotten_one_by_one(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let d1 = sender("d1");
    let send = |outbox: &str, number| {
        let origin = Some(Origin { outbox, lane: Lane::Telemetry, number });
        let mut places = Vec::new();
        log.append(&[NewEvent { sender: &d1, message: &text("x"), origin }], &mut places).unwrap();
        places[0].sequence.is_some()
    };
    for outbox in 0..8 {
        assert!(send(&format!("{outbox}"), 1));
    }
    assert!(send("0", 2));
    assert!(send("8", 1));
    assert!(!send("0", 2), "used lately");
    assert!(!send("8", 1));
    assert!(!send("2", 1));
    assert!(send("1", 1), "the one not used for longest gave way");
}

async fn a_reader_waits_for_its_own_partition(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let partition = log.partition_of("d1");
    let other = (0..).map(|index| format!("o{index}")).find(|id| log.partition_of(id) != partition).unwrap();
    let mut reader = log.reader(partition, Position::Beginning).await.unwrap();
    let mut out = Vec::new();
    {
        let mut waiting = Box::pin(reader.next(10, &mut out));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        log.send(&other, "not this").await;
        assert!(futures_util::poll!(&mut waiting).is_pending());
        log.send("d1", "this").await;
        waiting.await.unwrap();
    }
    assert_eq!(texts(&out), ["this"]);

    // Many readers, each told of each event.
    let mut readers = Vec::new();
    for _ in 0..10 {
        let mut reader = log.reader(partition, Position::End).await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut out = Vec::new();
            while out.len() < 50 {
                reader.next(7, &mut out).await.unwrap();
            }
            texts(&out)
        }));
    }
    let sent: Vec<String> = (0..50).map(|index| format!("{index}")).collect();
    for text in &sent {
        log.send("d1", text).await;
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), sent);
    }
}

async fn dropping_a_read_loses_nothing(place: log_support::Place) {
    // All from the disk, in small pieces, each read dropped after its first poll.
    let log = Log::open(&place, StoreOptions { tail_bytes: 0, ..StoreOptions::default() });
    for index in 0..200 {
        log.send("d1", &format!("{index}")).await;
    }
    let mut reader = log.reader(log.partition_of("d1"), Position::Beginning).await.unwrap();
    let mut out = Vec::new();
    let mut dropped = 0;
    while out.len() < 200 {
        let mut read = Box::pin(reader.next(3, &mut out));
        if futures_util::poll!(&mut read).is_pending() {
            dropped += 1;
            drop(read);
            tokio::task::yield_now().await;
        }
    }
    assert!(dropped > 0);
    assert_eq!(texts(&out), (0..200).map(|index| index.to_string()).collect::<Vec<_>>());
}

async fn reads_are_bounded_in_events_and_bytes(place: log_support::Place) {
    // The older half is on the disk alone.
    let log =
        Log::open(&place, StoreOptions { partitions: 1, tail_bytes: 256 * 1024, ..StoreOptions::default() });
    for _ in 0..50 {
        log.send("d", &"x".repeat(10_000)).await;
    }
    let mut reader = log.reader(0, Position::Beginning).await.unwrap();
    let mut seen = 0;
    while seen < 50 {
        let mut out = Vec::new();
        reader.next_within(ReadLimit { events: 100, bytes: 25_000 }, &mut out).await.unwrap();
        assert!(
            (1..=3).contains(&out.len()),
            "{} events are more than 25,000 bytes and one event",
            out.len()
        );
        assert!(out.iter().map(|event| event.sequence).eq(seen..seen + out.len() as u64));
        seen += out.len() as u64;
    }
    let mut out = Vec::new();
    let mut reader = log.reader(0, Position::Beginning).await.unwrap();
    reader.next_within(ReadLimit { events: 2, bytes: usize::MAX }, &mut out).await.unwrap();
    reader.next_within(ReadLimit { events: 5, bytes: 1 }, &mut out).await.unwrap();
    assert_eq!(out.len(), 3, "one event, however large");
    reader.next_within(ReadLimit { events: 5, bytes: 0 }, &mut out).await.unwrap();
    reader.next_within(ReadLimit::events(0), &mut out).await.unwrap();
    assert_eq!(out.len(), 3);
    log.close().await.unwrap();
}

async fn readers_at_the_end_and_far_behind_see_the_same(place: log_support::Place) {
    // Memory for a few hundred events only, and segments that change often.
    let options = StoreOptions { tail_bytes: 64 << 10, segment_bytes: 256 << 10, ..StoreOptions::default() };
    let log = Log::open(&place, options);
    let partition = log.partition_of("d1");
    let body = "x".repeat(500);
    let total = 4_000;
    let read = |from, step| {
        let events: Events = log.clone();
        async move {
            let mut reader = events.reader(partition, from).await.unwrap();
            let mut out = Vec::new();
            while out.len() < total {
                reader.next(step, &mut out).await.unwrap();
                // Some are quick, some fall behind what memory keeps.
                if step < 10 {
                    tokio::task::yield_now().await;
                }
            }
            assert!(out.iter().enumerate().all(|(index, event)| event.sequence == index as u64));
            texts(&out)
        }
    };
    let readers: Vec<_> =
        [1, 5, 100, 1_000].into_iter().map(|step| tokio::spawn(read(Position::Beginning, step))).collect();
    let sent: Vec<String> = (0..total).map(|index| format!("{index} {body}")).collect();
    for chunk in sent.chunks(20) {
        log.send_all("d1", chunk).await;
    }
    for reader in readers {
        assert!(reader.await.unwrap() == sent);
    }
    assert!(read(Position::Beginning, 100).await == sent);
    let mut late = log.reader(partition, Position::Sequence(3_990)).await.unwrap();
    let mut out = Vec::new();
    late.next(100, &mut out).await.unwrap();
    assert_eq!(out.len(), 10);
}

async fn what_cannot_be_stored_changes_nothing(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions { segment_bytes: 128 << 10, ..StoreOptions::default() });
    log.send("d1", "first").await;
    let before = log.partitions();
    let d1 = sender("d1");
    let (good, large) = (text("good"), Message::telemetry(vec![0; 200 << 10]));
    let origin = |number| Some(Origin { outbox: "a", lane: Lane::Telemetry, number });
    let mut places = vec![Place { partition: 9, sequence: None }];

    let batch = [
        NewEvent { sender: &d1, message: &good, origin: origin(1) },
        NewEvent { sender: &d1, message: &large, origin: origin(2) },
    ];
    let error = log.append(&batch, &mut places).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    let long = "x".repeat(129);
    let named = Origin { outbox: &long, lane: Lane::Telemetry, number: 1 };
    let batch = [NewEvent { sender: &d1, message: &good, origin: Some(named) }];
    let error = log.append(&batch, &mut places).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(places.len(), 1);
    assert_eq!(log.partitions(), before);

    // The mark does not claim what was not stored.
    log.append(&[NewEvent { sender: &d1, message: &good, origin: origin(1) }], &mut places).unwrap();
    assert_eq!(places[1].sequence, Some(1));
    // Nothing at all is fine.
    let ticket = log.append(&[], &mut places).unwrap();
    log.durable(ticket).await.unwrap();
}

async fn groups_and_their_positions(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let partition = log.partition_of("d1");
    assert_eq!(log.groups().await.unwrap(), ["$Default"]);
    log.add_group("Archive").await.unwrap();
    assert_eq!(log.groups().await.unwrap(), ["$Default", "Archive"]);
    for known in ["archive", "ARCHIVE"] {
        assert_eq!(log.add_group(known).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    for bad in ["", "a b", "$default", "$Default", "ä", &"x".repeat(51)] {
        assert_eq!(log.add_group(bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    for index in 0..18 {
        log.add_group(&format!("g{index}")).await.unwrap();
    }
    assert_eq!(log.groups().await.unwrap().len(), 20);
    assert_eq!(log.add_group("one-more").await.unwrap_err().kind(), ErrorKind::Conflict);

    let kind = |outcome: whimbrel::Result<()>| outcome.map_err(|error| error.kind());
    assert_eq!(kind(log.set_checkpoint("$Default", partition, 0).await), Err(ErrorKind::InvalidArgument));
    log.send("d1", "a").await;
    log.send("d1", "b").await;
    assert_eq!(log.checkpoint("$default", partition).await.unwrap(), None);
    log.set_checkpoint("$default", partition, 1).await.unwrap();
    assert_eq!(log.checkpoint("$DEFAULT", partition).await.unwrap(), Some(1));
    assert_eq!(log.checkpoint("archive", partition).await.unwrap(), None);
    log.set_checkpoint("$Default", partition, 0).await.unwrap();
    assert_eq!(log.checkpoint("$Default", partition).await.unwrap(), Some(0));
    assert_eq!(kind(log.set_checkpoint("$Default", partition, 2).await), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(log.set_checkpoint("nobody", partition, 0).await), Err(ErrorKind::NotFound));
    assert_eq!(kind(log.set_checkpoint("$Default", 4, 0).await), Err(ErrorKind::NotFound));
    assert_eq!(log.checkpoint("nobody", partition).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.checkpoint("$Default", 4).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn retention_by_bytes(place: log_support::Place) {
    let options = StoreOptions { segment_bytes: 256 << 10, tail_bytes: 1 << 20, ..StoreOptions::default() };
    let log = Log::open(&place, options);
    let partition = log.partition_of("d1");
    let body = "x".repeat(1_000);
    let sent: Vec<String> = (0..4_000).map(|index| format!("{index} {body}")).collect();
    for chunk in sent.chunks(50) {
        log.send_all("d1", chunk).await;
    }
    let mut behind = log.reader(partition, Position::Beginning).await.unwrap();
    let mut out = Vec::new();
    behind.next(10, &mut out).await.unwrap();
    assert_eq!(texts(&out), sent[..10]);

    let keep = Retention { bytes: 2 << 20, time: Duration::from_secs(3_600) };
    log.store.maintain(keep, SystemTime::now()).await.unwrap();
    let state = log.partitions()[partition as usize];
    assert_eq!(state.next, 4_000);
    let kept = (state.next - state.first) as usize;
    // Up to the bound, less one step of the index.
    assert!((1_500..2_097).contains(&kept), "{kept} of about 1 KiB each are kept");
    assert_eq!(texts(&all(&log, partition, Position::Beginning).await), sent[4_000 - kept..]);
    for old in [Position::Sequence(0), Position::Offset(1), Position::Time(UNIX_EPOCH)] {
        assert_eq!(texts(&all(&log, partition, old).await), sent[4_000 - kept..]);
    }
    // A reader that was in the removed part goes on behind it.
    out.clear();
    while out.last().is_none_or(|event: &Event| event.sequence != 3_999) {
        behind.next(1_000, &mut out).await.unwrap();
    }
    assert!(out.iter().is_sorted_by(|a, b| a.sequence < b.sequence));
    assert!(texts(&out).ends_with(&sent[4_000 - kept..]));
    // Nothing more goes when it is asked again, and other partitions are where they were.
    log.store.maintain(keep, SystemTime::now()).await.unwrap();
    assert_eq!(log.partitions()[partition as usize], state);
    assert!(log.partitions().iter().all(|other| other.partition == partition || other.next == 0));
}

async fn retention_by_time(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let hour = Duration::from_secs(3_600);
    let keep = Retention { bytes: u64::MAX, time: hour };
    let partition = log.partition_of("d1");
    for index in 0..10 {
        log.send("d1", &format!("{index}")).await;
    }
    log.store.maintain(keep, SystemTime::now()).await.unwrap();
    log.store.maintain(keep, SystemTime::now() + hour - Duration::from_secs(1)).await.unwrap();
    assert_eq!(all(&log, partition, Position::Beginning).await.len(), 10);

    log.store.maintain(keep, SystemTime::now() + hour + Duration::from_secs(1)).await.unwrap();
    let state = log.partitions()[partition as usize];
    assert_eq!((state.first, state.next), (10, 10));
    assert!(all(&log, partition, Position::Beginning).await.is_empty());
    log.send("d1", "new").await;
    let events = all(&log, partition, Position::Beginning).await;
    assert_eq!(texts(&events), ["new"]);
    assert_eq!(events[0].sequence, 10);
}

async fn closing_ends_everything(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions::default());
    let partition = log.partition_of("d1");
    let mut reader = log.reader(partition, Position::End).await.unwrap();
    let mut out = Vec::new();
    let mut waiting = Box::pin(reader.next(1, &mut out));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    log.send("d2", "x").await;
    log.close().await.unwrap();
    log.close().await.unwrap();
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
    let refused =
        log.append(&[NewEvent { sender: &sender("d1"), message: &text("x"), origin: None }], &mut Vec::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(log.groups().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(log.add_group("g").await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(log.reader(partition, Position::End).await.is_err());
}

async fn many_senders_at_once(place: log_support::Place) {
    let log = Log::open(&place, StoreOptions { tail_bytes: 256 << 10, ..StoreOptions::default() });
    let log = Arc::new(log);
    let (devices, rounds, batch) = (16_u64, 40_u64, 10_u64);
    let tasks: Vec<_> = (0..devices)
        .map(|device| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let sender = sender(&format!("d{device}"));
                for round in 0..rounds {
                    // Each batch repeats half of the one before.
                    let numbers: Vec<u64> =
                        ((round * batch).saturating_sub(5)..(round + 1) * batch).collect();
                    let messages: Vec<Message> =
                        numbers.iter().map(|number| text(&number.to_string())).collect();
                    let events: Vec<NewEvent<'_>> = std::iter::zip(&numbers, &messages)
                        .map(|(number, message)| NewEvent {
                            sender: &sender,
                            message,
                            origin: Some(Origin { outbox: "a", lane: Lane::Telemetry, number: *number }),
                        })
                        .collect();
                    let ticket = log.append(&events, &mut Vec::new()).unwrap();
                    log.durable(ticket).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut by_device: HashMap<Arc<str>, Vec<String>> = HashMap::new();
    for state in log.partitions() {
        let events = all(&log, state.partition, Position::Beginning).await;
        assert_eq!(events.len() as u64, state.next);
        for event in events {
            let text = texts(std::slice::from_ref(&event)).remove(0);
            by_device.entry(event.device).or_default().push(text);
        }
    }
    let expected: Vec<String> = (0..rounds * batch).map(|number| number.to_string()).collect();
    assert_eq!(by_device.len() as u64, devices);
    assert!(by_device.values().all(|found| *found == expected), "in order, each once");
}

/// A device stays in its partition: this is what data folders were written with.
#[tokio::test]
async fn partitions_of_devices_are_pinned() {
    let place = log_support::Place::Memory;
    for (partitions, expected) in [(1, [0, 0, 0, 0]), (4, PINNED_4), (32, PINNED_32)] {
        let log = Log::open(&place, StoreOptions { partitions, ..StoreOptions::default() });
        let found = ["thermostat-1", "thermostat-2", "a", "Ä"].map(|id| log.partition_of(id));
        assert_eq!(found, expected, "of {partitions}");
    }
}

const PINNED_4: [u32; 4] = [2, 3, 0, 2];
const PINNED_32: [u32; 4] = [30, 11, 12, 2];
