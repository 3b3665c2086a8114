//! MQTT over WebSocket at `/$iothub/websocket`: the frames become a stream of bytes for the MQTT front.

use std::{io, sync::Arc};

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Hub, failure::Failure, server::Peer};
use crate::fronts::mqtt::PeerInfo;

/// Where clients expect it. A query is ignored.
pub(super) const PATH: &str = "/$iothub/websocket";
const PROTOCOL: &str = "mqtt";
/// Clients may put several packets into one frame.
const FRAME_BYTES: usize = 1024 * 1024;

pub(super) async fn upgrade(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let socket =
        socket.map_err(|_| Failure::invalid("this path is for MQTT over WebSocket, sub-protocol mqtt"))?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let peer = PeerInfo {
        address: peer.address,
        certificates: peer.certificates.to_vec(),
        host: host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned()),
    };
    Ok(socket
        .protocols([PROTOCOL])
        .max_frame_size(FRAME_BYTES)
        .max_message_size(FRAME_BYTES)
        // The front coalesces its writes itself.
        .write_buffer_size(0)
        .on_upgrade(move |socket| Arc::clone(&hub.mqtt).serve_connection(bytes_of(socket), peer)))
}

/// The content of the binary frames, in both directions.
fn bytes_of(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Send + Unpin {
    let (sink, stream) = socket.split();
    let incoming = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => {
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, "MQTT comes in binary frames")))
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
