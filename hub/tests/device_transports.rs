//! A hub, our own device client and every protocol beside MQTT: what is sent arrives whole and in order, through restarts
//! and bad networks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::time::Duration;

use whimbrel::{
    Account, ConnectionState, DeviceClient, DeviceOptions, ErrorKind, Lane, Message, Outcome,
    device::Protocol,
    testing::{Fault, Link},
    wire::feedback::CommandOutcome,
};
use whimbrel_hub::{Hub, Listen, commands::CommandState, store::Position};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(120);

/// A way in: scheme of the server, what is spoken there.
type Door = (&'static str, Protocol);

const DOORS: [Door; 6] = [
    ("amqp", Protocol::Amqp),
    ("amqps", Protocol::Amqp),
    ("ws", Protocol::Amqp),
    ("wss", Protocol::Amqp),
    ("http", Protocol::Http),
    ("https", Protocol::Http),
];

fn address(hub: &Hub, scheme: &str) -> std::net::SocketAddr {
    match scheme {
        "amqp" => hub.amqp_addr(),
        "amqps" => hub.amqps_addr(),
        "ws" | "http" => hub.http_addr(),
        _ => hub.https_addr(),
    }
    .unwrap()
}

async fn options(hub: &Hub, id: &str, (scheme, protocol): Door, at: std::net::SocketAddr) -> DeviceOptions {
    let secret = hub.registry().create(id).await.unwrap().connection_string();
    DeviceOptions::from_connection_string(&secret)
        .unwrap()
        .server(format!("{scheme}://{at}"))
        .protocol(protocol)
        .ca_pem(hub.ca_certificate().unwrap().pem)
        .keep_alive(Duration::from_millis(600))
        .connect_timeout(Duration::from_secs(2))
        .backoff(Duration::from_millis(1), Duration::from_millis(50))
        .outbox_in_memory()
}

/// Everything the hub has of a device.
async fn stored(hub: &Hub, device: &str) -> Vec<Message> {
    let mut stored = Vec::new();
    for state in hub.events().partitions() {
        let mut reader = hub.events().reader(state.partition, Position::Beginning).await.unwrap();
        let mut events = Vec::new();
        while (events.len() as u64) < state.next {
            reader.next(1_000, &mut events).await.unwrap();
        }
        for event in events {
            if event.device.as_ref() == device {
                stored.push(event.message().unwrap());
            }
        }
    }
    stored
}

#[tokio::test]
async fn devices_come_in_by_every_door() {
    let hub = Hub::builder().in_memory().start().await.unwrap();
    for door @ (scheme, _) in DOORS {
        let id = format!("{scheme}#1");
        let client = DeviceClient::open(options(&hub, &id, door, address(&hub, scheme)).await).await.unwrap();
        let small = Message::telemetry("small")
            .message_id("m-1")
            .content_type("application/json")
            .content_encoding("utf-8")
            .creation_time(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .property("Room", "the attic")
            .property("größe", "ö");
        let binary = Message::alert(vec![0, 0xff, 0x80]);
        let large = Message::telemetry("x".repeat(200_000));
        for message in [&small, &binary, &large] {
            let receipt = client.send(message.clone()).await.unwrap();
            let outcome = tokio::time::timeout(LONG, receipt.outcome()).await.unwrap().unwrap();
            assert!(matches!(outcome, Outcome::Delivered { .. }), "{scheme}: {outcome:?}");
        }
        assert_eq!(*client.connection().borrow(), ConnectionState::Connected);
        client.close().await.unwrap();
        let stored = stored(&hub, &id).await;
        let bodies: Vec<_> = stored.iter().map(Message::body).collect();
        assert_eq!(bodies, [small.body(), binary.body(), large.body()], "{scheme}");
        assert_eq!(stored[0].system(), small.system(), "{scheme}");
        assert_eq!(stored[0].properties(), small.properties(), "{scheme}");
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_keys_are_told_and_a_disabled_device_comes_back_when_enabled() {
    let hub = Hub::builder().in_memory().start().await.unwrap();
    for door @ (scheme, _) in DOORS {
        let at = address(&hub, scheme);
        let client = DeviceClient::open(options(&hub, scheme, door, at).await).await.unwrap();
        client.send(Message::telemetry("before")).await.unwrap().outcome().await.unwrap();
        let mut connection = client.connection();
        hub.registry().set_enabled(scheme, false, None).await.unwrap();
        let receipt = client.send(Message::telemetry("meanwhile")).await.unwrap();
        let refused = connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. }));
        tokio::time::timeout(LONG, refused).await.expect(scheme).unwrap();
        assert_eq!(stored(&hub, scheme).await.len(), 1, "{scheme}");
        hub.registry().set_enabled(scheme, true, None).await.unwrap();
        let outcome = tokio::time::timeout(LONG, receipt.outcome()).await.expect(scheme).unwrap();
        assert!(matches!(outcome, Outcome::Delivered { .. }));
        client.close().await.unwrap();

        let (server, wrong) = (format!("{scheme}://{at}"), "c2VjcmV0c2VjcmV0c2VjcmV0");
        let text = format!("HostName=localhost;DeviceId={scheme};SharedAccessKey={wrong}");
        let options = DeviceOptions::from_connection_string(&text).unwrap().server(server).protocol(door.1);
        let options = options.ca_pem(hub.ca_certificate().unwrap().pem).outbox_in_memory();
        let client = DeviceClient::open(options.close_deadline(Duration::ZERO)).await.unwrap();
        let mut connection = client.connection();
        let refused = connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. }));
        tokio::time::timeout(LONG, refused).await.expect(scheme).unwrap();
        client.close().await.unwrap();
    }
    hub.stop().await.unwrap();
}

/// Sends numbered messages in both lanes while `trouble` is going on; then everything has to have arrived, in order.
async fn survives(hub: Hub, client: DeviceClient, device: &str, trouble: impl AsyncFnOnce(Hub) -> Hub) {
    let sending = async {
        let mut sent = [0_u64; 2];
        loop {
            let batch: Vec<_> = (0..20)
                .map(|index| {
                    let lane = usize::from(index % 5 != 0);
                    sent[lane] += 1;
                    let (number, lane) = (sent[lane], Lane::ALL[lane]);
                    Message::in_lane(lane, format!("{number} {:0>200}", "")).property("lane", lane.name())
                })
                .collect();
            client.send_all(batch).await.unwrap();
            // No faster than it can arrive, so that the end comes soon after the last trouble.
            while client.account().queued > 1_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let hub = tokio::select! {
        () = sending => unreachable!(),
        hub = tokio::time::timeout(LONG, trouble(hub)) => hub.expect("the trouble has its effect"),
    };
    assert_eq!(client.flush(LONG).await.unwrap(), 0, "{:?}", *client.connection().borrow());
    let accepted = client.account().accepted;
    client.close().await.unwrap();
    assert_eq!(client.account(), Account { accepted, delivered: accepted, ..Account::default() });

    let stored = stored(&hub, device).await;
    let mut total = 0;
    for lane in Lane::ALL {
        let of_lane = stored.iter().filter(|message| message.properties().get("lane") == Some(lane.name()));
        let text = |message: &Message| String::from_utf8(message.body().to_vec()).unwrap();
        let mut numbers: Vec<u64> =
            of_lane.map(|message| text(message).split(' ').next().unwrap().parse().unwrap()).collect();
        // At least once: what comes again is older than what came already.
        let mut newest = 0;
        numbers.retain(|number| {
            let new = *number > newest;
            newest = newest.max(*number);
            new
        });
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{lane:?}: {numbers:?}");
        total += numbers.len() as u64;
    }
    assert_eq!(total, accepted);
    hub.stop().await.unwrap();
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the connections there are now carry traffic both ways.
async fn in_full_swing(link: &Link) {
    let before = link.counts();
    until(|| {
        let now = link.counts();
        now.up > before.up + 20_000 && now.down > before.down + 100
    })
    .await;
}

async fn reconnected(link: &Link, before: u64) {
    until(|| link.counts().connections > before).await;
}

async fn through(door: Door, faults: impl AsyncFnOnce(&Link)) {
    let hub = Hub::builder().in_memory().start().await.unwrap();
    let link = Link::to(address(&hub, door.0)).await.unwrap();
    let client = DeviceClient::open(options(&hub, "d1", door, link.address()).await).await.unwrap();
    survives(hub, client, "d1", async |hub| {
        faults(&link).await;
        link.set(Fault::None);
        hub
    })
    .await;
}

async fn cuts(link: &Link) {
    for _ in 0..8 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.cut();
        reconnected(link, before).await;
    }
}

async fn refusals(link: &Link) {
    for _ in 0..3 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.set(Fault::Refuse);
        reconnected(link, before + 3).await;
        link.set(Fault::None);
    }
    in_full_swing(link).await;
}

async fn dead_air(link: &Link) {
    for _ in 0..2 {
        in_full_swing(link).await;
        let before = link.counts();
        link.set(Fault::Swallow);
        until(|| link.counts().lost > before.lost).await;
        link.set(Fault::None);
        reconnected(link, before.connections).await;
    }
    in_full_swing(link).await;
}

async fn crumbs(link: &Link) {
    in_full_swing(link).await;
    link.set(Fault::Split);
    for _ in 0..3 {
        in_full_swing(link).await;
        link.cut();
    }
    in_full_swing(link).await;
}

async fn garbage(link: &Link) {
    for _ in 0..4 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.set(Fault::Garbage);
        reconnected(link, before).await;
        link.set(Fault::None);
    }
    in_full_swing(link).await;
}

macro_rules! link_tests {
    ($($name:ident: $scheme:literal $protocol:ident { $($fault:ident)* })*) => {
        $(mod $name {
            use super::*;
            $(#[tokio::test]
            async fn $fault() {
                through(($scheme, Protocol::$protocol), super::$fault).await;
            })*
        })*
    };
}

// With TLS where bytes get damaged: without it nobody would notice what is damaged inside of a message.
link_tests! {
    amqp: "amqp" Amqp { cuts refusals dead_air }
    amqps: "amqps" Amqp { crumbs garbage }
    amqp_websocket: "ws" Amqp { cuts dead_air }
    http: "http" Http { cuts refusals dead_air }
    https: "https" Http { crumbs garbage }
}

/// What was acknowledged is there after a restart, and what was not goes to the next hub.
async fn restarts(door: Door, listen: impl Fn(Listen, whimbrel_hub::HubBuilder) -> whimbrel_hub::HubBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let start = |at| listen(at, Hub::builder().data_dir(folder.path())).start();
    let hub = start(Listen::loopback(0)).await.unwrap();
    let at = address(&hub, door.0);
    let client = DeviceClient::open(options(&hub, "d1", door, at).await).await.unwrap();
    let account = client.clone();
    survives(hub, client, "d1", async |mut hub| {
        for _ in 0..4 {
            let before = account.account().delivered;
            until(|| account.account().delivered > before + 300).await;
            hub.stop().await.unwrap();
            hub = start(Listen::on(at)).await.unwrap();
            let kept: u64 = hub.events().partitions().iter().map(|partition| partition.next).sum();
            assert!(kept >= account.account().delivered, "acknowledged and not kept");
        }
        hub
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_traffic_loses_nothing_over_amqp() {
    restarts(("amqp", Protocol::Amqp), |listen, builder| builder.amqp(listen)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_traffic_loses_nothing_over_http() {
    restarts(("http", Protocol::Http), |listen, builder| builder.http(listen)).await;
}

/// Waits for the end of a command.
async fn ends(hub: &Hub, id: &str) -> CommandOutcome {
    loop {
        let status = hub.commands().status("d1", id).await.unwrap().expect("an unknown command");
        if let CommandState::Ended { outcome, .. } = status.state {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn command(hub: &Hub, id: &str) {
    let message = Message::telemetry(format!("do {id}")).message_id(id).property("how", "gently");
    hub.commands().send("d1", message).await.unwrap();
}

/// Every transition a device can cause, as its program sees it.
async fn commands(door: Door) {
    let hub = Hub::builder().in_memory().set("command-lock", "1s").unwrap().start().await.unwrap();
    let link = Link::to(address(&hub, door.0)).await.unwrap();
    let options = options(&hub, "d1", door, link.address()).await.poll_interval(Duration::from_secs(1));
    // Sent while the device is away: it waits.
    for id in ["complete", "reject", "abandon"] {
        command(&hub, id).await;
    }
    let client = DeviceClient::open(options).await.unwrap();
    let inbox = client.inbox();
    let next = async || {
        let next = tokio::time::timeout(Duration::from_secs(20), inbox.next()).await;
        next.expect("a command").unwrap().expect("the client is open")
    };

    let three = [next().await, next().await, next().await];
    let ids: Vec<_> = three.iter().map(|command| command.message_id().unwrap().to_owned()).collect();
    assert_eq!(ids, ["complete", "reject", "abandon"], "in the order of the queue");
    assert_eq!((three[0].body().as_ref(), three[0].delivery_count()), (&b"do complete"[..], Some(0)));
    assert_eq!(three[0].properties().get("how"), Some("gently"));
    assert!(three[0].sequence() < three[1].sequence() && three[0].enqueued_at().is_some());
    // In another order than they came.
    three[2].abandon().await.unwrap();
    three[1].reject().await.unwrap();
    three[0].complete().await.unwrap();
    assert_eq!(ends(&hub, "reject").await, CommandOutcome::Rejected);
    assert_eq!(ends(&hub, "complete").await, CommandOutcome::Completed);
    let again = next().await;
    assert_eq!((again.message_id(), again.delivery_count()), (Some("abandon"), Some(1)));
    again.complete().await.unwrap();
    assert_eq!(ends(&hub, "abandon").await, CommandOutcome::Completed);

    // Later than its lock: the hub has delivered it again meanwhile, and what the program says is said of that.
    command(&hub, "late").await;
    let late = next().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    if let Err(error) = late.complete().await {
        assert_eq!(error.kind(), ErrorKind::LockLost, "{error}");
    }
    let outcome = tokio::time::timeout(Duration::from_secs(20), ends(&hub, "late")).await.expect("it ends");
    assert_eq!(outcome, CommandOutcome::Completed);

    // The connection is lost while the program has it.
    command(&hub, "cut").await;
    let held = next().await;
    assert_eq!(held.message_id(), Some("cut"));
    link.cut();
    // Whether or not the hub hears of it now: it is recorded, and settles the redelivery.
    if let Err(error) = held.complete().await {
        assert_eq!(error.kind(), ErrorKind::LockLost, "{error}");
    }
    let outcome = tokio::time::timeout(Duration::from_secs(20), ends(&hub, "cut")).await.expect("it ends");
    assert_eq!(outcome, CommandOutcome::Completed);
    client.close().await.unwrap();
    assert_eq!(hub.commands().pending("d1").await.unwrap(), 0);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn commands_go_through_every_transition_over_amqp() {
    commands(("amqps", Protocol::Amqp)).await;
}

#[tokio::test]
async fn commands_go_through_every_transition_over_amqp_in_a_websocket() {
    commands(("ws", Protocol::Amqp)).await;
}

#[tokio::test]
async fn commands_go_through_every_transition_over_http() {
    commands(("http", Protocol::Http)).await;
}
