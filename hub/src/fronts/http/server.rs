//! Connections of the HTTP front: accept, TLS, one task each, and an end that lets requests finish.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::patient::Patient;
use crate::builder::Stop;

/// Connections at once; more wait in the backlog of the listener.
const CONNECTIONS: usize = 4_096;
/// For the TLS handshake, and for the head of a request (an idle connection waits this long for the next one).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that does not read for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory for the head of a request.
const HEAD_BYTES: usize = 64 * 1024;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The chain it presented in the TLS handshake, leaf first; empty without one.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

/// Serves `router` on `listener` until asked to stop; then no connection is accepted, and each one ends after the request
/// it is at. `tasks` holds them.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stop: Stop,
    tasks: TaskTracker,
) {
    let tls = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async { (Arc::clone(&room).acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            () = stop.asked.cancelled() => return,
            next = next => next,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: wait for some to come back instead of spinning.
                warn!(%error, "an HTTP connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, address, tls, router, stop).await;
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: Stop,
) {
    // Small answers should not wait for more; an old kernel that refuses costs only latency.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, WRITE_TIMEOUT);
    let Some(tls) = tls else {
        return requests(stream, Peer { address, certificates: Arc::new([]) }, router, stop).await;
    };
    let shaken = tokio::select! {
        () = stop.asked.cancelled() => return,
        shaken = timeout(HEAD_TIMEOUT, tls.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = chain.iter().map(|one| one.clone().into_owned()).collect();
            requests(stream, Peer { address, certificates }, router, stop).await;
        }
        Ok(Err(error)) => debug!(%address, %error, "TLS handshake failed"),
        Err(_) => debug!(%address, "TLS handshake took too long"),
    }
}

async fn requests<S>(stream: S, peer: Peer, router: Router, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let address = peer.address;
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.asked.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = stop.overdue.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        debug!(%address, %error, "HTTP connection ended");
    }
}
