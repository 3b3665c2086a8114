//! The HTTP transport against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use whimbrel::{
    ErrorKind, Lane, Message,
    auth::{Key, SasToken},
    delivery::Verdict,
    outbox::Queued,
    transport::{
        Answer, CommandSupport, Connection, Greeting, Incoming, Offer, Settlement, Transport,
        http::{HttpConnection, HttpOptions, HttpTransport},
    },
};

const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
const EVENTS: &str = "/devices/d%231/messages/events?api-version=2021-04-12";
const COMMANDS: &str = "/devices/d%231/messages/devicebound?api-version=2021-04-12";

/// A request that waits for its answer.
struct Call {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
    reply: oneshot::Sender<Option<Vec<u8>>>,
}

impl Call {
    fn answer(self, status: u16) {
        self.answer_with(status, &[], "");
    }

    fn answer_with(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("HTTP/1.1 {status} X\r\n");
        if status != 204 {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        drop(self.reply.send(Some(text.into_bytes())));
    }

    fn refuse(self, status: u16, code: &str) {
        let body = format!(r#"{{"Message":"ErrorCode:{code};because","ExceptionMessage":""}}"#);
        self.answer_with(status, &[("iothub-errorcode", code)], &body);
    }

    fn raw(self, bytes: &[u8]) {
        drop(self.reply.send(Some(bytes.to_vec())));
    }

    fn hang_up(self) {
        drop(self.reply.send(None));
    }

    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/vnd.microsoft.iothub.json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Bodies of the messages in it.
    fn bodies(&self) -> Vec<String> {
        if !self.headers.contains_key("content-type") {
            return vec![String::from_utf8(self.body.clone()).unwrap()];
        }
        let json = self.json();
        json.as_array().unwrap().iter().map(|member| member["body"].as_str().unwrap().to_owned()).collect()
    }
}

struct Server {
    calls: mpsc::UnboundedReceiver<Call>,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Self { calls, address }
    }

    async fn call(&mut self) -> Call {
        tokio::time::timeout(Duration::from_secs(10), self.calls.recv()).await.expect("a request").unwrap()
    }

    /// Nothing comes for a while.
    async fn quiet(&mut self) {
        let call = tokio::time::timeout(Duration::from_millis(150), self.calls.recv()).await;
        if let Ok(Some(call)) = call {
            panic!("{} {}", call.method, call.target);
        }
    }
}

async fn serve(mut stream: TcpStream, calls: mpsc::UnboundedSender<Call>) -> Option<()> {
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(input[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: HashMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        input.drain(..end + 4);
        while input.len() < length {
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        }
        let body = input.drain(..length).collect();
        let (reply, answer) = oneshot::channel();
        calls.send(Call { method, target, headers, body, reply }).ok()?;
        let Ok(Some(answer)) = answer.await else { return None };
        stream.write_all(&answer).await.ok()?;
    }
}

fn options(address: SocketAddr) -> HttpOptions {
    HttpOptions {
        connection_string: format!("HostName=h.example;DeviceId=d#1;SharedAccessKey={KEY}").parse().unwrap(),
        endpoint: format!("http://{address}").parse().unwrap(),
        proxy: None,
        tls: None,
        keep_alive: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        token_lifetime: Duration::from_secs(3600),
        poll_interval: Duration::from_secs(1500),
    }
}

fn offer() -> Offer {
    Offer { outbox_id: "box".into(), window: 1_000, inbox_window: 16 }
}

fn queued(lane: Lane, sequence: u64, message: Message) -> Queued {
    Queued { lane, sequence, number: sequence, message }
}

fn telemetry(sequence: u64) -> Queued {
    queued(Lane::Telemetry, sequence, Message::telemetry(sequence.to_string()))
}

async fn connect(
    server: &mut Server,
    options: HttpOptions,
    answer: impl FnOnce(Call),
) -> whimbrel::Result<(HttpConnection, Greeting)> {
    let transport = HttpTransport::new(options).unwrap();
    tokio::join!(transport.connect(offer()), async { answer(server.call().await) }).0
}

async fn pair_with(change: impl FnOnce(&mut HttpOptions)) -> (HttpConnection, Server) {
    let mut server = Server::start().await;
    let mut options = options(server.address);
    change(&mut options);
    let (connection, _) =
        connect(&mut server, options, |call| call.refuse(412, "DeviceMessageLockLost")).await.unwrap();
    (connection, server)
}

async fn pair() -> (HttpConnection, Server) {
    pair_with(|_| {}).await
}

async fn brought(connection: &mut HttpConnection, count: usize) -> Incoming {
    let mut incoming = Incoming::default();
    while incoming.answers.len() + incoming.commands.len() + incoming.settled.len() < count {
        connection.drive(&mut incoming).await.unwrap();
    }
    incoming
}

async fn end(connection: &mut HttpConnection) -> whimbrel::Error {
    let mut incoming = Incoming::default();
    loop {
        if let Err(error) = connection.drive(&mut incoming).await {
            return error;
        }
    }
}

fn stored(lane: Lane, sequence: u64) -> Answer {
    Answer { lane, sequence, verdict: Verdict::Stored { partition: None, sequence: None } }
}

#[tokio::test]
async fn the_first_request_changes_nothing_and_shows_who_we_are() {
    let mut server = Server::start().await;
    let options = options(server.address);
    let (_, greeting) = connect(&mut server, options, |call| {
        assert_eq!(call.method, "POST");
        let nobody = "00000000-0000-0000-0000-000000000000";
        let path = format!("/devices/d%231/messages/devicebound/{nobody}/abandon?api-version=2021-04-12");
        assert_eq!(call.target, path);
        let token = SasToken::parse(&call.headers["authorization"]).unwrap();
        assert!(token.is_signed_by(&Key::from_base64(KEY).unwrap()) && token.covers("h.example/devices/d#1"));
        assert!(call.headers["user-agent"].starts_with("whimbrel/"));
        call.refuse(412, "DeviceMessageLockLost");
    })
    .await
    .unwrap();
    assert_eq!((greeting.renew_in, greeting.receive_maximum), (None, u16::MAX));
    assert_eq!(greeting.commands, CommandSupport { abandon_and_reject: true, answers: true });
}

#[tokio::test]
async fn who_is_not_let_in_hears_why() {
    for (status, code, kind) in [
        (401, "IotHubUnauthorized", ErrorKind::Unauthorized),
        (404, "DeviceNotFound", ErrorKind::Unauthorized),
        (403, "DeviceDisabled", ErrorKind::Unauthorized),
        (429, "ThrottlingException", ErrorKind::Throttled),
        (503, "ServiceUnavailable", ErrorKind::Unreachable),
        (200, "", ErrorKind::Protocol),
        (302, "", ErrorKind::Protocol),
    ] {
        let mut server = Server::start().await;
        let options = options(server.address);
        let connected = connect(&mut server, options, |call| {
            call.answer_with(
                status,
                &[("iothub-errorcode", code), ("retry-after", "3"), ("location", "/x")],
                "{}",
            );
        });
        let error = connected.await.map(drop).unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error}");
        assert_eq!(error.wait_hint(), Some(Duration::from_secs(3)));
        assert!(!error.to_string().contains("sig="), "{error}");
    }
    // Something else than HTTP, and nobody at all.
    let mut server = Server::start().await;
    let options_there = options(server.address);
    let error = connect(&mut server, options_there, |call| call.raw(b"SSH-2.0-OpenSSH\r\n")).await.map(drop);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unreachable);
    let nobody = HttpTransport::new(options("127.0.0.1:1".parse().unwrap())).unwrap();
    assert_eq!(nobody.connect(offer()).await.map(drop).unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_single_message_is_a_body_with_headers() {
    let (mut connection, mut server) = pair().await;
    let message =
        Message::telemetry("21.5").message_id("m").content_type("text/plain").property("room", "attic");
    connection.publish(&[queued(Lane::Telemetry, 7, message)]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        let call = server.call().await;
        assert_eq!(
            (call.method.as_str(), call.target.as_str(), &call.body[..]),
            ("POST", EVENTS, &b"21.5"[..])
        );
        assert_eq!(call.headers["iothub-messageid"], "m");
        assert_eq!(call.headers["iothub-contenttype"], "text/plain");
        assert_eq!(call.headers["iothub-app-room"], "attic");
        call.answer(204);
    });
    assert_eq!(incoming.answers, [stored(Lane::Telemetry, 7)]);
}

#[tokio::test]
async fn what_is_ready_goes_in_one_request_and_order_is_kept() {
    let (mut connection, mut server) = pair().await;
    connection.publish(&[telemetry(1)]);
    let (incoming, ()) = tokio::join!(
        async {
            let first = tokio::time::timeout(Duration::from_millis(50), brought(&mut connection, 1)).await;
            assert!(first.is_err());
            // While the first is under way, no other of its lane is.
            connection.publish(&(2..=900).map(telemetry).collect::<Vec<_>>());
            connection.publish(&[queued(Lane::Alert, 5, Message::alert("hot"))]);
            brought(&mut connection, 901).await
        },
        async {
            let first = server.call().await;
            assert_eq!(first.bodies(), ["1"]);
            let alert = server.call().await;
            assert_eq!(alert.bodies(), ["hot"], "alerts overtake");
            alert.answer(204);
            server.quiet().await;
            first.answer(204);
            let second = server.call().await;
            assert_eq!(second.bodies(), (2..=501).map(|number| number.to_string()).collect::<Vec<_>>());
            second.answer(204);
            let third = server.call().await;
            assert_eq!(third.bodies(), (502..=900).map(|number| number.to_string()).collect::<Vec<_>>());
            third.answer(204);
        }
    );
    let telemetry: Vec<_> = incoming.answers.iter().filter(|answer| answer.lane == Lane::Telemetry).collect();
    assert_eq!(
        telemetry.iter().map(|answer| answer.sequence).collect::<Vec<_>>(),
        (1..=900).collect::<Vec<_>>()
    );
    assert!(incoming.answers.contains(&stored(Lane::Alert, 5)));
}

#[tokio::test]
async fn one_bad_message_does_not_spoil_the_batch() {
    let (mut connection, mut server) = pair().await;
    connection.publish(&[telemetry(1), telemetry(2), telemetry(3), telemetry(4)]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 4), async {
        let whole = server.call().await;
        assert_eq!(whole.json().as_array().unwrap().len(), 4);
        whole.refuse(400, "ArgumentInvalid");
        for expected in 1..=4 {
            let one = server.call().await;
            assert_eq!(one.bodies(), [expected.to_string()]);
            if expected == 2 { one.refuse(413, "MessageTooLarge") } else { one.answer(204) }
        }
    });
    let verdicts: Vec<_> = incoming.answers.iter().map(|answer| (answer.sequence, &answer.verdict)).collect();
    for (sequence, verdict) in verdicts {
        match verdict {
            Verdict::Refused { retryable, reason } => {
                assert_eq!((sequence, *retryable, reason.as_str()), (2, false, "because"));
            }
            Verdict::Stored { .. } => assert_ne!(sequence, 2),
        }
    }
}

#[tokio::test]
async fn a_failed_request_is_a_lost_connection() {
    for (answer, kind, wait) in [
        (
            (|call: Call| call.answer_with(429, &[("Retry-After", "9")], "")) as fn(Call),
            ErrorKind::Throttled,
            Some(9),
        ),
        (|call| call.refuse(403, "IotHubQuotaExceeded"), ErrorKind::Throttled, None),
        (|call| call.refuse(401, "IotHubUnauthorized"), ErrorKind::Unauthorized, None),
        (|call| call.refuse(404, "DeviceNotFound"), ErrorKind::Unauthorized, None),
        (|call| call.refuse(500, "ServerError"), ErrorKind::Unreachable, None),
        (|call| call.answer_with(200, &[], "<html>sign in here</html>"), ErrorKind::Protocol, None),
        (|call| call.answer_with(302, &[("Location", "/elsewhere")], ""), ErrorKind::Protocol, None),
        (|call| call.hang_up(), ErrorKind::Unreachable, None),
        (|call| call.raw(b"HTTP/1.1 two hundred\r\n\r\n"), ErrorKind::Unreachable, None),
    ] {
        let (mut connection, mut server) = pair().await;
        connection.publish(&[telemetry(1), telemetry(2)]);
        let (error, ()) = tokio::join!(end(&mut connection), async { answer(server.call().await) });
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.wait_hint(), wait.map(Duration::from_secs), "{error}");
        assert_eq!(end(&mut connection).await.kind(), ErrorKind::Unreachable, "and it stays lost");
        server.quiet().await;
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_given_up() {
    let (mut connection, mut server) =
        pair_with(|options| options.keep_alive = Duration::from_millis(200)).await;
    connection.publish(&[telemetry(1)]);
    let (error, _call) = tokio::join!(end(&mut connection), server.call());
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("in time"), "{error}");
}

#[tokio::test]
async fn what_was_too_slow_is_tried_with_less_over_a_connection_of_its_own() {
    let mut server = Server::start().await;
    let mut options = options(server.address);
    options.keep_alive = Duration::from_millis(200);
    let transport = HttpTransport::new(options).unwrap();
    let messages: Vec<_> = (1..=100)
        .map(|sequence| queued(Lane::Telemetry, sequence, Message::telemetry("x".repeat(2_000))))
        .collect();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (connected, ()) =
            tokio::join!(transport.connect(offer()), async { server.call().await.answer(412) });
        let mut connection = connected.unwrap().0;
        connection.publish(&messages);
        let (error, call) = tokio::join!(end(&mut connection), server.call());
        assert!(error.to_string().contains("in time"), "{error}");
        counts.push(call.bodies().len());
    }
    assert_eq!(counts[0], 100);
    assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] >= 20, "{counts:?}");
}

#[tokio::test]
async fn tokens_are_renewed_without_a_word() {
    let (mut connection, mut server) =
        pair_with(|options| options.token_lifetime = Duration::from_secs(1)).await;
    let mut texts = Vec::new();
    for sequence in 1..=2 {
        connection.publish(&[telemetry(sequence)]);
        let (_, text) = tokio::join!(brought(&mut connection, 1), async {
            let call = server.call().await;
            let text = call.headers["authorization"].clone();
            call.answer(204);
            text
        });
        texts.push(text);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert_ne!(texts[0], texts[1]);
}

#[tokio::test]
async fn a_cancelled_drive_loses_nothing() {
    let (mut connection, mut server) = pair().await;
    connection.publish(&(1..=3).map(telemetry).collect::<Vec<_>>());
    let mut incoming = Incoming::default();
    let server = tokio::spawn(async move {
        let mut requests = 0;
        loop {
            let call = server.call().await;
            requests += 1;
            tokio::time::sleep(Duration::from_millis(30)).await;
            let last = call.bodies().contains(&"3".to_owned());
            call.answer(204);
            if last {
                return requests;
            }
        }
    });
    while incoming.answers.len() < 3 {
        let _ = tokio::time::timeout(Duration::from_millis(1), connection.drive(&mut incoming)).await;
    }
    assert_eq!(server.await.unwrap(), 1, "the request was not made again");
}

fn command(call: Call, lock: &str, sequence: u64) {
    assert_eq!((call.method.as_str(), call.target.as_str()), ("GET", COMMANDS));
    let (tag, sequence) = (format!("\"{lock}\""), sequence.to_string());
    let headers = [
        ("ETag", tag.as_str()),
        ("iothub-sequencenumber", &sequence),
        ("iothub-enqueuedtime", "2026-01-31T12:00:00.1230000Z"),
        ("iothub-deliverycount", "2"),
        ("iothub-messageid", "id"),
        ("iothub-app-room", "attic"),
    ];
    call.answer_with(200, &headers, &format!("command {sequence}"));
}

#[tokio::test]
async fn commands_are_fetched_until_there_are_none_and_settled_each_in_its_way() {
    let (mut connection, mut server) = pair().await;
    connection.receive_commands(16);
    let (incoming, ()) = tokio::join!(
        async {
            let incoming = brought(&mut connection, 3).await;
            // The poll that finds nothing.
            let _ =
                tokio::time::timeout(Duration::from_millis(100), connection.drive(&mut Incoming::default()))
                    .await;
            incoming
        },
        async {
            for sequence in 1..=3 {
                command(server.call().await, &format!("lock-{sequence}"), sequence);
            }
            server.call().await.answer(204);
        }
    );
    let commands = &incoming.commands;
    assert_eq!(
        commands.iter().map(|command| command.sequence).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(
        (commands[0].message.body().as_ref(), commands[0].delivery_count),
        (&b"command 1"[..], Some(2))
    );
    assert_eq!(commands[0].message.properties().get("room"), Some("attic"));
    assert!(commands[0].enqueued_at.is_some());

    let handles: Vec<_> = commands.iter().map(|command| command.handle).collect();
    connection.settle(&[
        (handles[0], Settlement::Complete),
        (handles[1], Settlement::Reject),
        (handles[2], Settlement::Abandon),
    ]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 3), async {
        let base = "/devices/d%231/messages/devicebound";
        let mut expected = HashMap::from([
            (format!("{base}/lock-1?api-version=2021-04-12"), ("DELETE", 204)),
            (format!("{base}/lock-2?api-version=2021-04-12&reject"), ("DELETE", 204)),
            (format!("{base}/lock-3/abandon?api-version=2021-04-12"), ("POST", 412)),
        ]);
        while !expected.is_empty() {
            let call = server.call().await;
            let (method, status) = expected.remove(&call.target).unwrap();
            assert_eq!(call.method, method);
            if status == 204 { call.answer(204) } else { call.refuse(412, "DeviceMessageLockLost") }
        }
        server.quiet().await;
    });
    for settled in &incoming.settled {
        let kind = settled.result.as_ref().err().map(whimbrel::Error::kind);
        assert_eq!(kind, (settled.handle == handles[2]).then_some(ErrorKind::LockLost), "{settled:?}");
    }
    connection.settle(&[(handles[0], Settlement::Complete)]);
    let incoming = brought(&mut connection, 1).await;
    assert_eq!(incoming.settled[0].result.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn no_more_commands_than_the_window_and_again_at_the_interval() {
    let (mut connection, mut server) =
        pair_with(|options| options.poll_interval = Duration::from_secs(1)).await;
    connection.receive_commands(1);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        command(server.call().await, "lock-1", 1);
    });
    let handle = incoming.commands[0].handle;
    let mut nothing = Incoming::default();
    let driving = tokio::time::timeout(Duration::from_millis(200), connection.drive(&mut nothing));
    let (driven, ()) = tokio::join!(driving, server.quiet());
    assert!(driven.is_err(), "the window is full");

    connection.settle(&[(handle, Settlement::Complete)]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 2), async {
        server.call().await.answer(204);
        server.call().await.answer(204);
        let began = tokio::time::Instant::now();
        command(server.call().await, "lock-2", 2);
        assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
    });
    assert_eq!((incoming.settled.len(), incoming.commands.len()), (1, 1));
}

#[tokio::test]
async fn a_command_without_a_lock_ends_the_connection() {
    let (mut connection, mut server) = pair().await;
    connection.receive_commands(1);
    let (error, ()) = tokio::join!(end(&mut connection), async {
        server.call().await.answer_with(200, &[], "body");
    });
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn a_settlement_that_fails_is_a_lost_connection() {
    let (mut connection, mut server) = pair().await;
    connection.receive_commands(1);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        command(server.call().await, "lock", 1);
    });
    connection.settle(&[(incoming.commands[0].handle, Settlement::Complete)]);
    let (error, ()) = tokio::join!(end(&mut connection), async {
        server.call().await.answer_with(429, &[("Retry-After", "2")], "");
    });
    assert_eq!((error.kind(), error.wait_hint()), (ErrorKind::Throttled, Some(Duration::from_secs(2))));
}

#[tokio::test]
async fn what_was_settled_goes_out_before_the_end() {
    let (mut connection, mut server) = pair().await;
    connection.receive_commands(1);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        command(server.call().await, "lock", 1);
    });
    connection.settle(&[(incoming.commands[0].handle, Settlement::Complete)]);
    let ((), ()) = tokio::join!(connection.finish(), async {
        let call = server.call().await;
        assert_eq!(call.method, "DELETE");
        call.answer(204);
    });
}

#[tokio::test]
async fn a_proxy_is_asked_and_told_its_password() {
    let mut proxy = Server::start().await;
    let mut options = options("127.0.0.1:9".parse().unwrap());
    options.proxy = Some(format!("http://me:secret@{}", proxy.address).parse().unwrap());
    connect(&mut proxy, options, |call| {
        assert!(call.target.starts_with("http://127.0.0.1:9/devices/d%231/"), "{}", call.target);
        assert_eq!(call.headers["proxy-authorization"], "Basic bWU6c2VjcmV0");
        call.answer(412);
    })
    .await
    .unwrap();
}
