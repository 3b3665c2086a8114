//! What no client would send, over real sockets: it is refused, and others are served.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};
use whimbrel::Message;

use crate::client::{Ground, PATIENCE, sendable};

/// Sends the bytes and reads until the hub closes.
async fn answer(ground: &Ground, bytes: &[u8]) -> Vec<u8> {
    let mut stream = ground.dial().await;
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut said = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the hub keeps the connection");
    said
}

#[tokio::test]
async fn strangers_that_speak_something_else_hear_what_is_spoken_here() {
    let ground = Ground::start().await;
    const AMQP: &[u8] = b"AMQP\x00\x01\x00\x00";
    assert!(answer(&ground, b"GET / HTTP/1.1\r\n\r\n").await.is_empty());
    assert!(answer(&ground, b"\x16\x03\x01\x00\xa5").await.is_empty(), "TLS on the port without");
    assert_eq!(answer(&ground, b"AMQP\x00\x00\x09\x01").await, AMQP, "the version before 1.0");
    assert_eq!(answer(&ground, b"AMQP\x02\x01\x00\x00").await, AMQP, "TLS by AMQP's own means");
    assert!(answer(&ground, b"AMQ").await.is_empty());
    let after_header = [AMQP, &[0xff; 64]].concat();
    let said = answer(&ground, &after_header).await;
    assert!(said.starts_with(AMQP) && said.len() > AMQP.len(), "open and close with an error: {said:?}");
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn streams_that_were_valid_once_do_no_harm() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    // SASL ANONYMOUS, open, begin, attach.
    let talk = [
        &b"AMQP\x03\x01\x00\x00"[..],
        b"\x00\x00\x00\x1b\x02\x01\x00\x00\x00\x53\x41\xc0\x0e\x03\xa3\x09ANONYMOUS\x40\x40",
        b"AMQP\x00\x01\x00\x00",
        b"\x00\x00\x00\x16\x02\x00\x00\x00\x00\x53\x10\xc0\x09\x02\xa1\x04peer\x40\x40",
        b"\x00\x00\x00\x18\x02\x00\x00\x00\x00\x53\x11\xc0\x0b\x04\x40\x43\x52\x64\x52\x64\x40\x40\x40\x40",
        b"\x00\x00\x00\x10\x02\x00\x00\x00\x00\x53\x18\xc0\x03\x01\x40\x40",
    ]
    .concat();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut dice = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut streams = JoinSet::new();
    for _ in 0..300 {
        let mut bytes = talk.clone();
        for _ in 0..1 + dice(5) {
            let place = dice(bytes.len());
            bytes[place] = dice(256) as u8;
        }
        bytes.truncate(8 + dice(bytes.len() - 8));
        let mut stream = ground.dial().await;
        streams.spawn(async move {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("kept open");
        });
    }
    streams.join_all().await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    link.send(sendable(&Message::telemetry("served"))).await.unwrap();
    assert_eq!(ground.events("d", 1).await.len(), 1);
    ground.hub.stop().await.unwrap();
}
