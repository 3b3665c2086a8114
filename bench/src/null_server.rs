//! An MQTT server that acknowledges everything at once, with a thread for each connection and one write for each read.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Args;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

/// Options of `null-server`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where it listens; with port 0 the system picks one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speaks TLS only, with a certificate made for this run; it is written to this file, for clients to trust.
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
}

/// Serves until standard input ends. Prints `{"port": …}` when it listens; for each line on standard input and at the end a
/// line with what it has counted so far.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let tls = match &options.tls {
        None => None,
        Some(file) => Some(certificate(options.listen, file)?),
    };
    let server = NullServer::start(options.listen, tls)?;
    say(&json!({ "port": server.address.port() }))?;
    for line in io::stdin().lock().lines() {
        line?;
        say(&server.counts())?;
    }
    Ok(say(&server.counts())?)
}

fn say(line: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A server for any number of connections, until the process ends.
pub(crate) struct NullServer {
    pub(crate) address: SocketAddr,
    totals: Arc<Totals>,
}

#[derive(Default)]
struct Totals {
    connections: AtomicU64,
    publishes: AtomicU64,
    /// Threads of open connections, as the system names them.
    threads: Mutex<Vec<PathBuf>>,
    /// Nanoseconds of those that have ended.
    cpu: AtomicU64,
}

impl NullServer {
    pub(crate) fn start(listen: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let totals = Arc::new(Totals::default());
        thread::spawn({
            let totals = totals.clone();
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    totals.connections.fetch_add(1, Ordering::Relaxed);
                    let (tls, totals) = (tls.clone(), totals.clone());
                    thread::spawn(move || {
                        let this = fs::read_link("/proc/thread-self").unwrap_or_default();
                        totals.threads().push(this.clone());
                        // The client hanging up is the end of a connection.
                        let _ = serve(stream, tls, &totals);
                        totals.ended(&this);
                    });
                }
            }
        });
        Ok(Self { address, totals })
    }

    /// Processor time the threads of its connections have used.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = self.totals.threads();
        let open: Duration = threads.iter().map(|thread| cpu_of(thread)).sum();
        open + Duration::from_nanos(self.totals.cpu.load(Ordering::Relaxed))
    }

    fn counts(&self) -> serde_json::Value {
        json!({
            "connections": self.totals.connections.load(Ordering::Relaxed),
            "publishes": self.totals.publishes.load(Ordering::Relaxed),
            "cpu_seconds": self.cpu().as_secs_f64(),
        })
    }
}

impl Totals {
    fn threads(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, this: &Path) {
        let mut threads = self.threads();
        threads.retain(|thread| thread != this);
        self.cpu.fetch_add(cpu_of(this).as_nanos() as u64, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, totals: &Totals) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => converse(stream, totals),
        Some(tls) => {
            let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
            converse(StreamOwned::new(connection, stream), totals)
        }
    }
}

fn converse(mut stream: impl Read + Write, totals: &Totals) -> io::Result<()> {
    let mut session = Session::default();
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((packet, header, after)) = split(rest) {
            session.take(packet, packet.get(header..).unwrap_or_default());
            rest = after;
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        // Counted first: a client that has all its acknowledgements finds them counted.
        totals.publishes.fetch_add(std::mem::take(&mut session.publishes), Ordering::Relaxed);
        stream.write_all(&session.answers)?;
        session.answers.clear();
    }
}

/// The first packet, the length of its fixed header, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let (packet, after) = bytes.split_at_checked(index + 2 + length)?;
            return Some((packet, index + 2, after));
        }
    }
    None
}

/// One connection: what it speaks, what it has published since it was last looked at, and what it is to be answered.
#[derive(Default)]
struct Session {
    is_v5: bool,
    publishes: u64,
    answers: Vec<u8>,
}

impl Session {
    /// Takes one packet; `body` is the part of it behind the fixed header.
    fn take(&mut self, packet: &[u8], body: &[u8]) {
        let first = packet.first().copied().unwrap_or_default();
        match (first >> 4, first >> 1 & 3) {
            (CONNECT, _) => {
                self.is_v5 = body.get(6) == Some(&5);
                self.answers.extend(if self.is_v5 { &[0x20, 3, 0, 0, 0][..] } else { &[0x20, 2, 0, 0] });
            }
            (PUBLISH, 0) => self.publishes += 1,
            (PUBLISH, _) => {
                self.publishes += 1;
                self.answers.extend([0x40, 2]);
                self.answers.extend(number(body, 2 + two(body, 0)));
            }
            (SUBSCRIBE, _) => self.granted(0x90, body, 1, 1),
            // MQTT 3.1.1 acknowledges without saying of what; MQTT 5 with one code for each filter.
            (UNSUBSCRIBE, _) => self.granted(0xb0, body, 0, usize::from(self.is_v5)),
            (PINGREQ, _) => self.answers.extend([0xd0, 0]),
            _ => {}
        }
    }

    /// SUBACK or UNSUBACK: `codes` bytes for each filter, each of which `more` bytes follow.
    fn granted(&mut self, kind: u8, body: &[u8], more: usize, codes: usize) {
        let mut at = 2;
        if self.is_v5 {
            // Properties of more than 127 bytes are nothing a client sends here.
            at += 1 + body.get(2).map_or(0, |length| usize::from(*length));
        }
        let mut filters = 0;
        while at + 2 <= body.len() {
            at += 2 + two(body, at) + more;
            filters += 1;
        }
        let length = 2 + usize::from(self.is_v5) + filters * codes;
        self.answers.extend([kind, length.min(127) as u8]);
        self.answers.extend(number(body, 0));
        if self.is_v5 {
            self.answers.push(0);
        }
        let code = if kind == 0x90 { 1 } else { 0 };
        self.answers.extend(std::iter::repeat_n(code, filters * codes));
    }
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;

fn number(body: &[u8], at: usize) -> [u8; 2] {
    body.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

fn two(body: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes(number(body, at)))
}

/// A certificate of its own authority for the address of `listen`, written to `file`.
fn certificate(listen: SocketAddr, file: &Path) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(vec![listen.ip().to_string(), "localhost".to_owned()])?;
    fs::write(file, made.cert.pem())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config))
}

/// Processor time of a thread; nothing where the system does not tell.
fn cpu_of(thread: &Path) -> Duration {
    let text = fs::read_to_string(Path::new("/proc").join(thread).join("schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

/// Processor time of this process so far, in steps of 10 ms; nothing where the system does not tell.
pub(crate) fn process_cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name comes second, in brackets, and may hold anything; of the fields after it these are 14 and 15 in all.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(version: u8, packets: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut session = Session::default();
        let connect = [0x10, 10, 0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60];
        for packet in [&connect[..]].iter().chain(packets) {
            let (packet, header, after) = split(packet).unwrap();
            assert_eq!(after, b"");
            session.take(packet, &packet[header..]);
        }
        (session.answers, session.publishes)
    }

    #[test]
    fn each_packet_gets_its_acknowledgement() {
        let publish = [0x3b, 7, 0, 1, b't', 0x12, 0x34, b'a', b'b'];
        let unacknowledged = [0x30, 4, 0, 1, b't', b'a'];
        let (subscribe, subscribe5) =
            ([0x82, 10, 0, 7, 0, 1, b'a', 1, 0, 1, b'b', 0], [0x82, 7, 0, 7, 0, 0, 1, b'a', 1]);
        let (unsubscribe, unsubscribe5) = ([0xa2, 5, 0, 8, 0, 1, b'a'], [0xa2, 6, 0, 8, 0, 0, 1, b'a']);
        let (text, count) =
            answers(4, &[&publish, &unacknowledged, &subscribe, &unsubscribe, &[0xc0, 0], &[0xe0, 0]]);
        let wanted: &[&[u8]] =
            &[&[0x20, 2, 0, 0], &[0x40, 2, 0x12, 0x34], &[0x90, 4, 0, 7, 1, 1], &[0xb0, 2, 0, 8], &[0xd0, 0]];
        assert_eq!((text, count), (wanted.concat(), 2));
        let (text, count) = answers(5, &[&publish, &subscribe5, &unsubscribe5]);
        let wanted: &[&[u8]] =
            &[&[0x20, 3, 0, 0, 0], &[0x40, 2, 0x12, 0x34], &[0x90, 4, 0, 7, 0, 1], &[0xb0, 4, 0, 8, 0, 0]];
        assert_eq!((text, count), (wanted.concat(), 1));
    }
}
