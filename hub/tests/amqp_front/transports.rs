//! TLS, certificates, WebSocket, and the end of the hub.

use std::sync::Arc;

use fe2o3_amqp::{link::DetachError, sasl_profile::SaslProfile};
use fe2o3_amqp_types::messaging::Outcome;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use whimbrel::Message;
use whimbrel_hub::registry::Authentication;

use crate::client::{Client, Ground, PATIENCE, condition, sendable};

async fn tls(
    ground: &Ground,
    identity: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = ground.hub.ca_certificate().unwrap().pem;
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(identity) => {
            let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![identity.cert.der().clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(ground.hub.amqps_addr().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// A connection over WebSocket: frames on one side, a stream of bytes on the other.
async fn websocket(ground: &Ground, path: &str) -> DuplexStream {
    let mut stream = TcpStream::connect(ground.hub.http_addr().unwrap()).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: AMQPWSB10\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-protocol: amqpwsb10"), "{head}");
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut from_hub, mut to_hub) = stream.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(theirs);
    tokio::spawn(async move {
        loop {
            let Ok(first) = from_hub.read_u8().await else { return };
            let length = match from_hub.read_u8().await.unwrap() {
                126 => usize::from(from_hub.read_u16().await.unwrap()),
                127 => from_hub.read_u64().await.unwrap() as usize,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            from_hub.read_exact(&mut payload).await.unwrap();
            if first & 0x0f != 2 || to_client.write_all(&payload).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 60_000];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            // Masked with zeros.
            let mut frame = vec![0x82, 0x80 | 126];
            frame.extend((length as u16).to_be_bytes());
            frame.extend([0; 4]);
            frame.extend(&buffer[..length]);
            if to_hub.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    ours
}

/// The security layer with EXTERNAL, up to the code of its outcome: the library does it only over TLS of its own.
async fn external(stream: &mut TlsStream<TcpStream>) -> u8 {
    stream.write_all(b"AMQP\x03\x01\x00\x00").await.unwrap();
    stream
        .write_all(b"\x00\x00\x00\x1a\x02\x01\x00\x00\x00\x53\x41\xc0\x0d\x03\xa3\x08EXTERNAL\x40\x40")
        .await
        .unwrap();
    assert_eq!(stream.read_u64().await.unwrap().to_be_bytes(), *b"AMQP\x03\x01\x00\x00");
    let mut last = Vec::new();
    for _ in ["mechanisms", "outcome"] {
        let size = stream.read_u32().await.unwrap();
        last = vec![0; size as usize - 4];
        stream.read_exact(&mut last).await.unwrap();
    }
    // Header 4, descriptor 3, list 3, constructor of a ubyte 1.
    last[11]
}

async fn send_as_device<S>(ground: &Ground, stream: S)
where
    S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
{
    let mut client = Client::open(stream, SaslProfile::Anonymous).await.unwrap();
    let token = ground.policy_token("device", "localhost", crate::client::in_an_hour());
    assert_eq!(client.put_token("amqps://localhost:5671/", &token).await.0, 200);
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    for message in [Message::telemetry("small"), Message::telemetry(vec![7; 200_000])] {
        let outcome = timeout(PATIENCE, link.send(sendable(&message))).await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)));
    }
    client.connection.close().await.unwrap();
}

#[tokio::test]
async fn tls_from_the_first_byte_and_websockets_on_every_path() {
    let ground = Ground::start().await;
    ground.device("d").await;
    send_as_device(&ground, tls(&ground, None).await).await;
    for path in ["/$iothub/websocket", "/$servicebus/websocket", "/$servicebus/websocket/"] {
        send_as_device(&ground, websocket(&ground, path).await).await;
    }
    assert_eq!(ground.events("d", 8).await.len(), 8);
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_its_device_and_no_other() {
    let ground = Ground::start().await;
    let identity = rcgen::generate_simple_self_signed(vec!["d".into()]).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, identity.cert.der());
    let primary = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let authentication = Authentication::SelfSigned { primary, secondary: None };
    ground.hub.registry().create_with("d", authentication).await.unwrap();
    ground.device("other").await;
    for mechanism in ["EXTERNAL", "ANONYMOUS", ""] {
        let mut stream = tls(&ground, Some(&identity)).await;
        let mut client = match mechanism {
            "EXTERNAL" => {
                assert_eq!(external(&mut stream).await, 0);
                Client::open_bare(stream).await.unwrap()
            }
            "ANONYMOUS" => Client::open(stream, SaslProfile::Anonymous).await.unwrap(),
            _ => Client::open_bare(stream).await.unwrap(),
        };
        let mut link = client.sender("/devices/d/messages/events").await.unwrap();
        assert!(matches!(link.send(sendable(&Message::telemetry("x"))).await.unwrap(), Outcome::Accepted(_)));
        let error = client.sender("/devices/other/messages/events").await.unwrap_err();
        assert_eq!(condition(&error), "amqp:unauthorized-access");
        assert!(client.sender("/messages/devicebound").await.is_err());
    }
    // Without a certificate it proves nothing.
    assert_ne!(external(&mut tls(&ground, None).await).await, 0);
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopping_hub_answers_what_it_has_taken_and_says_goodbye() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    let mut outcomes = Vec::new();
    for number in 0..200 {
        let message = Message::telemetry(format!("{number}"));
        outcomes.push(link.send_batchable(sendable(&message)).await.unwrap());
    }
    assert!(matches!(outcomes.remove(0).await.unwrap(), Outcome::Accepted(_)));
    let idle = ground.stranger().await;
    timeout(PATIENCE, ground.hub.stop()).await.expect("the hub did not stop").unwrap();
    let ended = timeout(PATIENCE, link.on_detach()).await.expect("the link stays");
    assert!(!matches!(ended, DetachError::IllegalState), "{ended:?}");
    // The library tells of what was not answered when the link is dropped.
    drop(link);
    for outcome in outcomes {
        let _ = timeout(PATIENCE, outcome).await.expect("neither answered nor over");
    }
    drop(idle);
}
