//! An MQTT server that acknowledges everything at once, on a thread of its own, with one write for each read.

use std::{
    fs, io,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A server for one connection.
pub(super) struct NullServer {
    pub(super) address: SocketAddr,
    cpu: Arc<AtomicU64>,
}

impl NullServer {
    /// Processor time its thread has used, as of its last read.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }
}

pub(super) fn start() -> io::Result<NullServer> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let cpu = Arc::new(AtomicU64::new(0));
    thread::spawn({
        let cpu = cpu.clone();
        move || {
            // The client hanging up is the end of it.
            if let Ok((stream, _)) = listener.accept() {
                let _ = serve(stream, &cpu);
            }
        }
    });
    Ok(NullServer { address, cpu })
}

fn serve(mut stream: TcpStream, cpu: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    let mut answers = Vec::new();
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((packet, header, after)) = split(rest) {
            answer(packet, header, &mut answers);
            rest = after;
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        stream.write_all(&answers)?;
        answers.clear();
        cpu.store(thread_cpu().as_nanos() as u64, Ordering::Relaxed);
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

fn answer(packet: &[u8], header: usize, answers: &mut Vec<u8>) {
    match packet.first() {
        Some(0x10) => match packet.get(header + 6) {
            Some(5) => answers.extend([0x20, 3, 0, 0, 0]),
            _ => answers.extend([0x20, 2, 0, 0]),
        },
        Some(0x32) => {
            let topic = packet.get(header..header + 2).unwrap_or(&[0, 0]);
            let at = header + 2 + topic.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            answers.extend([0x40, 2]);
            answers.extend(packet.get(at..at + 2).unwrap_or(&[0, 0]));
        }
        Some(0xc0) => answers.extend([0xd0, 0]),
        _ => {}
    }
}

/// Processor time of the calling thread; nothing where the system does not tell.
fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

/// Processor time of this process so far, in steps of 10 ms; nothing where the system does not tell.
pub(super) fn process_cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name comes second, in brackets, and may hold anything; of the fields after it these are 14 and 15 in all.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
