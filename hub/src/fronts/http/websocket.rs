//! MQTT and AMQP over WebSocket: the frames become a stream of bytes for the front that the sub-protocol names.

use std::{io, sync::Arc};

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Hub, failure::Failure, server::Peer};
use crate::fronts::door::PeerInfo;

/// Where clients expect it. A query is ignored.
pub(super) const PATH: &str = "/$iothub/websocket";
/// Where Event Hubs clients expect AMQP.
pub(super) const EVENTS_PATH: &str = "/$servicebus/websocket";
/// The same with a slash behind.
pub(super) const EVENTS_PATH_SLASH: &str = "/$servicebus/websocket/";
const MQTT: &str = "mqtt";
const AMQP: &str = whimbrel::wire::amqp::SUBPROTOCOL;
/// Clients may put several packets into one frame.
const FRAME_BYTES: usize = 1024 * 1024;

/// `/$iothub/websocket`: either protocol, MQTT when the client names neither.
pub(super) async fn upgrade(
    state: State<Hub>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let offers =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let wants_amqp =
        offers.flat_map(|offer| offer.split(',')).any(|offer| offer.trim().eq_ignore_ascii_case(AMQP));
    match wants_amqp {
        true => upgrade_amqp(state, peer, headers, socket).await,
        false => upgrade_mqtt(state, peer, &headers, socket),
    }
}

fn upgrade_mqtt(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    headers: &HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let socket = socket.map_err(|_| {
        Failure::invalid("this path is for WebSocket: MQTT as sub-protocol mqtt, AMQP as AMQPWSB10")
    })?;
    let peer = peer_info(&peer, headers);
    Ok(prepared(socket, MQTT)
        .on_upgrade(move |socket| Arc::clone(&hub.mqtt).serve_connection(bytes_of(socket), peer)))
}

/// `/$servicebus/websocket`, and the other path for who asks for AMQP.
pub(super) async fn upgrade_amqp(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let socket = socket
        .map_err(|_| Failure::invalid("this path is for AMQP over WebSocket, sub-protocol AMQPWSB10"))?;
    let peer = peer_info(&peer, &headers);
    Ok(prepared(socket, AMQP)
        .on_upgrade(move |socket| Arc::clone(&hub.amqp).serve_connection(bytes_of(socket), peer)))
}

fn prepared(socket: WebSocketUpgrade, protocol: &'static str) -> WebSocketUpgrade {
    socket
        .protocols([protocol])
        .max_frame_size(FRAME_BYTES)
        .max_message_size(FRAME_BYTES)
        // The fronts coalesce their writes themselves.
        .write_buffer_size(0)
}

fn peer_info(peer: &Peer, headers: &HeaderMap) -> PeerInfo {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    PeerInfo {
        address: peer.address,
        certificates: peer.certificates.to_vec(),
        host: host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned()),
    }
}

/// The content of the binary frames, in both directions.
fn bytes_of(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Send + Unpin {
    let (sink, stream) = socket.split();
    let incoming = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => {
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, "both protocols come in binary frames")))
            }
            // Pings are answered below us; after a close frame the stream ends by itself.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let outgoing = sink
        .with(|bytes: Bytes| future::ready(Ok::<_, axum::Error>(Message::Binary(bytes))))
        .sink_map_err(io::Error::other);
    tokio::io::join(StreamReader::new(incoming), SinkWriter::new(CopyToBytes::new(outgoing)))
}
