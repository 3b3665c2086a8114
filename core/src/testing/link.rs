//! A network between a client and a server that fails on demand.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// How the network behaves, from now on, in both directions, also on connections that are open already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Everything passes.
    #[default]
    None,
    /// Open connections are cut, new ones are closed as soon as they are made.
    Refuse,
    /// Bytes vanish and nobody is told. A connection that this happened to stays dead when the fault is over.
    Swallow,
    /// At most `bytes` in each interval.
    Slow {
        /// How many.
        bytes: usize,
        /// How long.
        interval: Duration,
    },
    /// What arrives is passed on in pieces of one to three bytes, each a write of its own.
    Split,
    /// Each direction of each connection gets one piece of nonsense before the next bytes.
    Garbage,
}

/// How much went through a [`Link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Connections made by clients.
    pub connections: u64,
    /// Bytes from clients to the server.
    pub up: u64,
    /// Bytes from the server to clients.
    pub down: u64,
    /// Bytes that vanished, in both directions.
    pub lost: u64,
}

/// A TCP proxy on this machine. Dropping it cuts everything.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    state: watch::Sender<State>,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    lost: AtomicU64,
}

/// What the pumps go by; a change of `cuts` ends them.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    fault: Fault,
    cuts: u64,
}

impl Link {
    /// A network to `target`, listening on a free port of the loopback address.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            state: watch::Sender::new(State::default()),
            connections: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { shared, address, accepting })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections elsewhere, to a server that came back at another port.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Changes how the network behaves.
    pub fn set(&self, fault: Fault) {
        self.shared.state.send_modify(|state| {
            state.fault = fault;
            state.cuts += u64::from(fault == Fault::Refuse);
        });
    }

    /// Cuts every open connection; new ones can be made at once.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// How much went through.
    pub fn counts(&self) -> LinkCounts {
        LinkCounts {
            connections: self.shared.connections.load(Ordering::Relaxed),
            up: self.shared.up.load(Ordering::Relaxed),
            down: self.shared.down.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if shared.state.borrow().fault != Fault::Refuse {
            connections.spawn(carry(client, shared.clone()));
        }
    }
}

/// Runs one connection until either side or a cut ends it.
async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let cuts = state.borrow_and_update().cuts;
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let cut = {
        let mut state = shared.state.subscribe();
        async move { state.wait_for(|state| state.cuts != cuts).await.is_ok() }
    };
    let pumps = async {
        let server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let lost = &shared.lost;
        let up = Pump {
            from: from_client,
            to: to_server,
            state: state.clone(),
            count: &shared.up,
            lost,
            ruined: false,
        };
        let down = Pump { from: from_server, to: to_client, state, count: &shared.down, lost, ruined: false };
        tokio::select! {
            result = up.run(0x55) => result,
            result = down.run(0xaa) => result,
        }
    };
    tokio::select! {
        _ = cut => {}
        // How a connection ends is what the tests look at on its two ends.
        _ = pumps => {}
    }
}

struct Pump<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    state: watch::Receiver<State>,
    count: &'a AtomicU64,
    lost: &'a AtomicU64,
    /// Had its nonsense already.
    ruined: bool,
}

impl Pump<'_> {
    async fn run(mut self, noise: u8) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let mut dead = false;
        loop {
            let fault = self.state.borrow_and_update().fault;
            let limit = match fault {
                Fault::Slow { bytes, .. } => bytes.clamp(1, buffer.len()),
                _ => buffer.len(),
            };
            let count = self.from.read(buffer.get_mut(..limit).unwrap_or_default()).await?;
            if count == 0 {
                return Ok(());
            }
            // The fault may have changed while nothing came.
            let fault = self.state.borrow_and_update().fault;
            dead |= fault == Fault::Swallow;
            if dead {
                self.lost.fetch_add(count as u64, Ordering::Relaxed);
                continue;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            match fault {
                Fault::Split => {
                    let mut rest = bytes;
                    for size in (1..=3).cycle() {
                        let (piece, after) = rest.split_at(size.min(rest.len()));
                        self.to.write_all(piece).await?;
                        tokio::task::yield_now().await;
                        rest = after;
                        if rest.is_empty() {
                            break;
                        }
                    }
                }
                Fault::Garbage if !self.ruined => {
                    self.ruined = true;
                    self.to.write_all(&[noise; 32]).await?;
                    self.to.write_all(bytes).await?;
                }
                Fault::Slow { interval, .. } => {
                    self.to.write_all(bytes).await?;
                    tokio::time::sleep(interval).await;
                }
                _ => self.to.write_all(bytes).await?,
            }
            self.count.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn connected() -> (Link, TcpStream) {
        let link = Link::to(echo().await).await.unwrap();
        let client = TcpStream::connect(link.address()).await.unwrap();
        (link, client)
    }

    async fn round_trip(client: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn what_is_sent_arrives_and_is_counted() {
        let (link, mut client) = connected().await;
        for fault in [Fault::None, Fault::Split, Fault::Slow { bytes: 3, interval: Duration::from_millis(1) }]
        {
            link.set(fault);
            assert_eq!(round_trip(&mut client, b"0123456789").await.unwrap(), b"0123456789", "{fault:?}");
        }
        drop(client);
        let counts = link.counts();
        assert_eq!((counts.connections, counts.up), (1, 30));
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_nothing_else() {
        let (link, mut client) = connected().await;
        round_trip(&mut client, b"1").await.unwrap();
        link.cut();
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
        let mut client = TcpStream::connect(link.address()).await.unwrap();
        round_trip(&mut client, b"2").await.unwrap();
        link.set(Fault::Refuse);
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
        let mut client = TcpStream::connect(link.address()).await.unwrap();
        assert!(round_trip(&mut client, b"3").await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_lost_bytes_stays_dead() {
        let (link, mut client) = connected().await;
        round_trip(&mut client, b"1").await.unwrap();
        link.set(Fault::Swallow);
        client.write_all(b"2").await.unwrap();
        while link.counts().lost == 0 {
            tokio::task::yield_now().await;
        }
        link.set(Fault::None);
        let mut other = TcpStream::connect(link.address()).await.unwrap();
        round_trip(&mut other, b"3").await.unwrap();
        assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn garbage_comes_once_before_the_bytes() {
        let (link, mut client) = connected().await;
        link.set(Fault::Garbage);
        client.write_all(b"x").await.unwrap();
        let mut back = [0; 65];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!((back[0], back[32], back[64]), (0xaa, 0x55, b'x'));
        assert_eq!(round_trip(&mut client, b"y").await.unwrap(), b"y");
    }
}
