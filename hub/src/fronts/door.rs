//! The way into a front whose connections last: accepting, TLS, counting in and out, stopping.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::limits::{Census, Counted, Limits};

/// Who is at the other end, as far as the transport knows.
#[derive(Debug)]
pub(crate) struct PeerInfo {
    /// Address, for the log.
    pub(crate) address: SocketAddr,
    /// Certificates it presented in the TLS handshake, leaf first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// Host name it asked for, in TLS or HTTP.
    pub(crate) host: Option<String>,
}

/// Why somebody did not get through the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptOut {
    /// There are too many connections.
    TooMany,
    /// The handshake did not end in time.
    Silent,
    /// What came was no handshake, or it failed.
    Malformed,
    /// The hub is stopping.
    Stopping,
}

/// Who is inside, and whether somebody is still let in.
#[derive(Debug)]
pub(super) struct Door {
    connections: usize,
    first_packet: Duration,
    census: Arc<Census>,
    stopping: CancellationToken,
}

/// A front behind a [`Door`].
pub(super) trait Behind: Send + Sync + Sized + 'static {
    /// Its door.
    fn door(&self) -> &Door;

    /// Somebody did not get through.
    fn count_kept_out(&self, why: KeptOut);

    /// Serves a connection to its end; what it opens with has to be there by the deadline. `counted` is dropped when
    /// nothing of the connection is left.
    fn serve<S>(
        self: Arc<Self>,
        stream: S,
        peer: Box<PeerInfo>,
        deadline: Instant,
        counted: Counted,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send;
}

impl Door {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            first_packet: limits.first_packet,
            census: Arc::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// Cancelled when the front is to stop.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Connections open now.
    pub(super) fn open_connections(&self) -> usize {
        self.census.open()
    }

    /// Lets nobody in any more, and tells those inside.
    pub(super) fn shut(&self) {
        self.stopping.cancel();
    }

    /// Waits until nobody is inside.
    pub(super) async fn emptied(&self) {
        self.census.emptied().await;
    }
}

/// Accepts connections until the front stops.
pub(super) async fn listen<F: Behind>(front: Arc<F>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let door = front.door();
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: others have to end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(counted) = count_in(&*front) else { continue };
        // What is ready is written at once; delaying it gains nothing.
        let _ = stream.set_nodelay(true);
        let deadline = Instant::now() + door.first_packet;
        let front = Arc::clone(&front);
        match tls.clone() {
            None => {
                let peer = PeerInfo { address, certificates: Vec::new(), host: None };
                tokio::spawn(front.serve(stream, Box::new(peer), deadline, counted));
            }
            Some(tls) => {
                tokio::spawn(async move {
                    // Boxed: a handshake is large, and a connection that idles should not be.
                    let secured = Box::pin(secure(&*front, stream, tls, address, deadline)).await;
                    if let Some((stream, peer)) = secured {
                        front.serve(stream, Box::new(peer), deadline, counted).await;
                    }
                });
            }
        }
    }
}

/// Serves a client that connected in another way, such as over WebSocket, until its connection ends.
pub(super) async fn serve_connection<F: Behind, S>(front: Arc<F>, stream: S, peer: PeerInfo)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(counted) = count_in(&*front) else { return };
    let deadline = Instant::now() + front.door().first_packet;
    front.serve(stream, Box::new(peer), deadline, counted).await;
}

fn count_in(front: &impl Behind) -> Option<Counted> {
    let door = front.door();
    let counted = door.census.enter(door.connections);
    if counted.is_none() {
        front.count_kept_out(KeptOut::TooMany);
    }
    counted
}

async fn secure(
    front: &impl Behind,
    stream: TcpStream,
    tls: TlsAcceptor,
    address: SocketAddr,
    deadline: Instant,
) -> Option<(TlsStream<TcpStream>, PeerInfo)> {
    let handshake = tokio::select! {
        biased;
        () = front.door().stopping.cancelled() => {
            front.count_kept_out(KeptOut::Stopping);
            return None;
        }
        handshake = timeout_at(deadline, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let connection = stream.get_ref().1;
            let certificates = connection.peer_certificates().unwrap_or_default().to_vec();
            let host = connection.server_name().map(str::to_owned);
            Some((stream, PeerInfo { address, certificates, host }))
        }
        Ok(Err(error)) => {
            tracing::info!(peer = %address, %error, "refused: the TLS handshake failed");
            front.count_kept_out(KeptOut::Malformed);
            None
        }
        Err(_) => {
            front.count_kept_out(KeptOut::Silent);
            None
        }
    }
}
