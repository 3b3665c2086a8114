//! MQTT over TLS and over WebSockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
#![cfg(feature = "websocket")]

mod device_support;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use device_support::{Peer, Server, options, queued};
use futures_util::{Sink, Stream};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{Request, Response},
    },
};
use whimbrel::{
    ErrorKind, Lane, Message,
    transport::{
        Connection, Incoming, Offer, Transport,
        mqtt::{MqttConnection, MqttOptions, MqttTransport, Protocol},
        tls::{ClientCertificate, TlsConfig},
    },
};

/// An authority, a server certificate for this machine, and a device certificate.
struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Issued { certificate: params.signed_by(&key, &self.ca).unwrap(), key }
    }

    fn pem(&self) -> String {
        self.ca.pem()
    }

    fn acceptor(&self, client_certificate: bool) -> TlsAcceptor {
        let Issued { certificate, key } = self.issue("127.0.0.1");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = key.serialize_der().try_into().unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn connect(options: MqttOptions) -> whimbrel::Result<MqttConnection> {
    let offer = Offer { outbox_id: "box".into(), window: 100, inbox_window: 16 };
    Ok(MqttTransport::new(options)?.connect(offer).await?.0)
}

fn at(scheme: &str, address: SocketAddr, tls: Option<TlsConfig>) -> MqttOptions {
    let mut options = options(address, Protocol::Mqtt5);
    options.endpoint = format!("{scheme}://{address}").parse().unwrap();
    options.tls = tls;
    options
}

/// Sends a few messages, small and large, and sees them acknowledged.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut MqttConnection, peer: &mut Peer<S>) {
    let sizes = [1, 100, 200_000, 3];
    let messages: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| queued(Lane::Telemetry, at as u64, Message::telemetry(vec![b'x'; *size])))
        .collect();
    connection.publish(&messages);
    let server = async {
        for size in sizes {
            let published = peer.published().await.unwrap();
            assert_eq!(published.body.len(), size);
            peer.ack(published.packet_id).await;
        }
    };
    let client = async {
        let mut incoming = Incoming::default();
        while incoming.answers.len() < sizes.len() {
            connection.drive(&mut incoming).await.unwrap();
        }
    };
    tokio::join!(server, client);
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Peer<S> {
    let mut peer = Peer::new(stream);
    peer.hello().await;
    peer.welcome().await;
    peer
}

#[tokio::test]
async fn tls_with_an_authority_of_its_own() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(false);
    let (server, address) = Server::start().await;
    let tls = TlsConfig::new(Some(authority.pem().as_bytes()), None).unwrap();
    let (connected, mut peer) = tokio::join!(connect(at("mqtts", address, Some(tls))), async {
        greet(acceptor.accept(server.accept_raw().await).await.unwrap()).await
    });
    exchange(&mut connected.unwrap(), &mut peer).await;
}

#[tokio::test]
async fn a_server_nobody_vouches_for_is_not_spoken_to() {
    let acceptor = Authority::new().acceptor(false);
    let (server, address) = Server::start().await;
    let stranger = Authority::new();
    for ca in [Some(stranger.pem()), None] {
        let tls = TlsConfig::new(ca.as_ref().map(|pem| pem.as_bytes()), None).unwrap();
        let (connected, accepted) = tokio::join!(connect(at("mqtts", address, Some(tls))), async {
            acceptor.accept(server.accept_raw().await).await
        });
        assert!(accepted.is_err());
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_proves_who_we_are() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(true);
    let device = authority.issue("d1");
    let client = ClientCertificate {
        chain: device.certificate.pem().into_bytes(),
        key: device.key.serialize_pem().into_bytes().into(),
    };
    assert_eq!(format!("{client:?}"), "ClientCertificate(..)");
    let (server, address) = Server::start().await;
    let tls = TlsConfig::new(Some(authority.pem().as_bytes()), Some(&client)).unwrap();
    let mut options = at("mqtts", address, Some(tls));
    options.connection_string = "HostName=h.example;DeviceId=d1;x509=true".parse().unwrap();
    let (connected, (hello, presented)) = tokio::join!(connect(options), async {
        let stream: TlsStream<TcpStream> = acceptor.accept(server.accept_raw().await).await.unwrap();
        let presented = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let mut peer = Peer::new(stream);
        let hello = peer.hello().await;
        peer.welcome().await;
        (hello, presented)
    });
    connected.unwrap();
    assert_eq!(presented, *device.certificate.der());
    assert_eq!((hello.method.as_deref(), hello.data, hello.password.as_str()), (Some("X509"), None, ""));
}

#[test]
fn what_is_no_certificate_is_refused_by_name() {
    let authority = Authority::new();
    let device = authority.issue("d1");
    let good = ClientCertificate {
        chain: device.certificate.pem().into_bytes(),
        key: device.key.serialize_pem().into_bytes().into(),
    };
    let no_chain = ClientCertificate { chain: Vec::new(), ..good.clone() };
    let no_key = ClientCertificate { key: b"nothing".to_vec().into(), ..good.clone() };
    let other_key = ClientCertificate {
        key: authority.issue("d2").key.serialize_pem().into_bytes().into(),
        ..good.clone()
    };
    let ca = authority.pem();
    for (ca, client, part) in [
        ("", None, "CA file"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "CA file"),
        (&ca, Some(&no_chain), "client certificate"),
        (&ca, Some(&no_key), "private key"),
        (&ca, Some(&other_key), "client certificate"),
    ] {
        let error = TlsConfig::new(Some(ca.as_bytes()), client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(part), "{error}");
    }
}

/// The server's end of a WebSocket as a stream of bytes.
struct Bytestream<S> {
    inner: WebSocketStream<S>,
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Bytestream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match Pin::new(&mut self.inner).poll_next(cx) {
                Poll::Ready(Some(Ok(Frame::Binary(bytes)))) => self.rest = bytes,
                Poll::Ready(None | Some(Ok(Frame::Close(_)))) => return Poll::Ready(Ok(())),
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Bytestream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(Pin::new(&mut self.inner).poll_ready(cx).is_ready());
        // Split in the middle of a packet: message borders mean nothing.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for part in [first, second] {
            let frame = Frame::Binary(Bytes::copy_from_slice(part));
            Pin::new(&mut self.inner).start_send(frame).unwrap();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(io::Error::other)
    }
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn check_upgrade(
    request: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::http::Response<Option<String>>> {
    assert_eq!(request.uri().path(), "/$iothub/websocket");
    assert_eq!(request.headers()["Sec-WebSocket-Protocol"], "mqtt");
    response.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    Ok(response)
}

async fn websocket_exchange<S: AsyncRead + AsyncWrite + Unpin>(
    options: MqttOptions,
    stream: impl Future<Output = S>,
) {
    let (connected, mut peer) = tokio::join!(connect(options), async {
        let inner = accept_hdr_async(stream.await, check_upgrade).await.unwrap();
        greet(Bytestream { inner, rest: Bytes::new() }).await
    });
    let mut connection = connected.unwrap();
    exchange(&mut connection, &mut peer).await;
    let ((), published) = tokio::join!(connection.finish(), peer.published());
    assert!(published.is_none());
}

#[tokio::test]
async fn a_websocket_on_plain_tcp() {
    let (server, address) = Server::start().await;
    websocket_exchange(at("ws", address, None), server.accept_raw()).await;
}

#[tokio::test]
async fn a_websocket_on_tls() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(false);
    let (server, address) = Server::start().await;
    let tls = TlsConfig::new(Some(authority.pem().as_bytes()), None).unwrap();
    websocket_exchange(at("wss", address, Some(tls)), async {
        acceptor.accept(server.accept_raw().await).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_opens_no_websocket_is_unreachable() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (server, address) = Server::start().await;
    let (connected, _stream) = tokio::join!(connect(at("ws", address, None)), async {
        let mut stream = server.accept_raw().await;
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream
    });
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::Unreachable);
}
