//! The back end of the demo: follows `GET /v1/events` and goes on where it was whenever the hub comes back.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::protocol::Id;
use crate::service::Service;

/// Wait before asking again when the hub is away.
const PAUSE: Duration = Duration::from_millis(50);

/// An event the reader has found.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) device: String,
    pub(super) id: Id,
}

/// Reads on until nobody listens.
pub(super) async fn follow(service: Service, found: mpsc::Sender<Found>) {
    let mut positions = Positions::default();
    while !found.is_closed() {
        let query = [("follow", "true".to_owned()), ("positions", positions.to_string())];
        let request = service.request(Method::GET, &["events"]).query(&query);
        // Every failure means the same here: the hub is away, and will be back.
        if let Ok(mut response) = service.answer(request).await {
            let mut lines = Lines::default();
            while let Ok(Some(chunk)) = response.chunk().await {
                for line in lines.take(&chunk) {
                    if let Some(event) = positions.read(&line)
                        && found.send(event).await.is_err()
                    {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whole lines out of pieces; what a broken connection leaves of the last one is dropped with this.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(chunk);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

/// The next sequence number wanted of each partition. Displayed as a query asks for it.
#[derive(Default)]
struct Positions(BTreeMap<u32, u64>);

#[derive(Deserialize)]
struct Line {
    partition: u32,
    sequence: u64,
    device: String,
    system: System,
}

#[derive(Deserialize)]
struct System {
    message_id: Option<String>,
}

impl Positions {
    /// The event of a line, and where to go on after it. `None` for what is no event of the demo.
    fn read(&mut self, line: &[u8]) -> Option<Found> {
        let line: Line = serde_json::from_slice(line).ok()?;
        self.0.insert(line.partition, line.sequence + 1);
        Some(Found { device: line.device, id: line.system.message_id?.parse().ok()? })
    }
}

impl std::fmt::Display for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (partition, next)) in self.0.iter().enumerate() {
            write!(f, "{}{partition}:{next}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use whimbrel::Lane;

    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert!(lines.take(b"{\"a\"").is_empty());
        assert_eq!(lines.take(b":1}\n\n{\"b\":2}\n{"), [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]);
        assert_eq!(lines.take(b"}\n"), [b"{}".to_vec()]);
    }

    #[test]
    fn reading_goes_on_behind_the_last_event_of_each_partition() {
        let mut positions = Positions::default();
        assert_eq!(positions.to_string(), "");
        let line =
            r#"{"partition":2,"sequence":7,"device":"d","system":{"message_id":"alert-1-3"},"body":{}}"#;
        let id = Id { lane: Lane::Alert, life: 1, number: 3 };
        assert_eq!(positions.read(line.as_bytes()), Some(Found { device: "d".into(), id }));
        assert_eq!(positions.read(br#"{"partition":0,"sequence":0,"device":"d","system":{}}"#), None);
        assert_eq!(positions.to_string(), "0:1,2:8");
    }
}
