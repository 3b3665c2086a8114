//! `GET /v1/events`: events as lines of JSON, from a position, once or for ever.
//!
//! A stream that was cut goes on without a gap and without repeating anything: the header `whimbrel-positions` says where
//! each partition starts, each line says where it stands, and the parameter `positions` takes the next sequence numbers
//! wanted (`0:17,1:42`; that is the last one seen plus one). Partitions it does not name start at `from`.

use std::{collections::BTreeMap, time::Duration, time::SystemTime};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};
use whimbrel::{Error, ErrorKind, wire::time};

use super::{
    Hub,
    failure::{Failure, FailureBody, Params},
    feed::{Feed, Source},
    groups::RESOURCE,
    line::{self, BodyForm, LineSchema},
};
use crate::{
    access::Right,
    config,
    events::{Event, PartitionState, Position},
    store::DEFAULT_GROUP,
};

/// Where the partitions of a stream start.
const POSITIONS: HeaderName = HeaderName::from_static("whimbrel-positions");
/// Lines are handed to the connection in pieces of about this size.
const CHUNK_BYTES: usize = 32 * 1024;

pub(super) fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new().routes(routes!(read))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventParams {
    /// A partition, or `all` (default).
    partition: Option<String>,
    /// Consumer group of `from=checkpoint`. Default `$Default`.
    group: Option<String>,
    /// See [`From`]. Default `beginning`.
    from: Option<String>,
    /// `partition:sequence,…` to go on from.
    positions: Option<String>,
    /// Wait for new events instead of ending at the last one there is.
    #[serde(default)]
    follow: bool,
    /// End after this many lines.
    limit: Option<u64>,
    /// Only events of this device.
    device: Option<String>,
    /// `auto` (default) or `base64`.
    #[serde(default)]
    body: BodyForm,
    /// An empty line after so long without an event, so that both sides notice a dead connection: `15s`.
    heartbeat: Option<String>,
}

/// Where partitions start that `positions` does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// At a position of the log.
    Position(Position),
    /// Behind the checkpoint of the group; at the beginning where it has none.
    Checkpoint,
}

impl From {
    fn read(text: &str, now: SystemTime) -> Option<Self> {
        let (word, value) = text.split_once(':').map_or((text, None), |(word, value)| (word, Some(value)));
        let position = match (word, value) {
            ("beginning", None) => Position::Beginning,
            ("end", None) => Position::End,
            ("checkpoint", None) => return Some(Self::Checkpoint),
            ("sequence", Some(number)) => Position::Sequence(number.parse().ok()?),
            ("offset", Some(number)) => Position::Offset(number.parse().ok()?),
            ("time", Some(text)) => Position::Time(time::parse(text)?),
            ("ago", Some(text)) => Position::Time(now.checked_sub(config::duration(text).ok()?)?),
            _ => return None,
        };
        Some(Self::Position(position))
    }
}

/// Reads events as lines of JSON, in the order the hub took them in.
///
/// An error in the middle is a last line `{"error": {…}}`. The header `whimbrel-positions` says where each partition
/// starts; with `sequence + 1` put in for each line it is the parameter `positions` to go on from.
#[utoipa::path(
    get,
    operation_id = "read_events",
    path = "/events",
    tag = "events",
    params(
        ("partition" = Option<String>, Query, description = "A number, or all (default)"),
        ("group" = Option<String>, Query, description = "Whose checkpoint; default $Default"),
        (
            "from" = Option<String>,
            Query,
            description = "beginning (default), end, checkpoint, sequence:N, offset:N, time:2026-01-31T12:00:00Z, ago:1h"
        ),
        ("positions" = Option<String>, Query, description = "partition:sequence,… to go on from"),
        ("follow" = Option<bool>, Query, description = "Wait for new events instead of ending"),
        ("limit" = Option<u64>, Query, description = "End after this many lines"),
        ("device" = Option<String>, Query, description = "Only events of this device"),
        ("body" = inline(Option<BodyForm>), Query, description = "How bodies are shown: auto (default) or base64"),
        ("heartbeat" = Option<String>, Query, description = "An empty line after so long without an event, such as 15s"),
    ),
    responses(
        (status = 200, description = "A line for each event", body = LineSchema, content_type = "application/x-ndjson",
            headers(("whimbrel-positions" = String, description = "Where the partitions start"))),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn read(
    State(hub): State<Hub>,
    headers: HeaderMap,
    Params(params): Params<EventParams>,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    let from = params.from.as_deref().unwrap_or("beginning");
    let from = From::read(from, SystemTime::now()).ok_or_else(|| {
        Failure::invalid(
            "from is beginning, end, checkpoint, sequence:N, offset:N, time:2026-01-31T12:00:00Z or ago:1h",
        )
    })?;
    let positions = params.positions.as_deref().map_or(Ok(BTreeMap::new()), read_positions)?;
    let heartbeat =
        params.heartbeat.as_deref().map(config::duration).transpose().map_err(Failure::invalid)?;
    if heartbeat.is_some_and(|every| every < Duration::from_secs(1)) {
        return Err(Failure::invalid("heartbeat is at least 1s"));
    }
    let group = params.group.as_deref().unwrap_or(DEFAULT_GROUP);

    let mut sources = Vec::new();
    let mut starts = Vec::new();
    for state in chosen(&hub, &params)? {
        let partition = state.partition;
        let checkpoint = hub.events.checkpoint(group, partition).await?;
        let start = match (positions.get(&partition), from) {
            (Some(next), _) => Position::Sequence(*next),
            (None, From::Checkpoint) => Position::Sequence(checkpoint.map_or(state.first, |last| last + 1)),
            // What is said in the header has to stay true: the end is where it is now.
            (None, From::Position(Position::End)) => Position::Sequence(state.next),
            (None, From::Position(Position::Beginning)) => Position::Sequence(state.first),
            (None, From::Position(position)) => position,
        };
        if let Position::Sequence(next) = start {
            starts.push(format!("{partition}:{next}"));
        }
        let reader = hub.events.reader(partition, start).await?;
        sources.push(Source::new(reader, (!params.follow).then_some(state.next)));
    }

    let lines = Lines {
        feed: Feed::new(sources),
        device: params.device,
        form: params.body,
        left: params.limit,
        follow: params.follow,
        heartbeat,
        stop: hub.stop.clone(),
        ended: false,
    };
    let body = stream::unfold(lines, |mut lines| async move {
        let chunk = lines.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), lines))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(starts) = HeaderValue::from_str(&starts.join(",")) {
        headers.insert(POSITIONS, starts);
    }
    Ok(response)
}

/// The partitions a request is about.
fn chosen(hub: &Hub, params: &EventParams) -> Result<Vec<PartitionState>, Failure> {
    let mut states = hub.events.partitions();
    match (params.partition.as_deref(), params.device.as_deref()) {
        (None | Some("all"), None) => {}
        // A device's events are all in one partition: the others need not be read.
        (None | Some("all"), Some(device)) => {
            let own = hub.events.partition_of(device);
            states.retain(|state| state.partition == own);
        }
        (Some(text), _) => {
            states.retain(|state| text.parse() == Ok(state.partition));
            if states.is_empty() {
                let message = format!("there is no partition \"{text}\"");
                return Err(Failure::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message));
            }
        }
    }
    Ok(states)
}

fn read_positions(text: &str) -> Result<BTreeMap<u32, u64>, Failure> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (partition, sequence) = pair.split_once(':')?;
            Some((partition.trim().parse().ok()?, sequence.trim().parse().ok()?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Failure::invalid("positions is partition:sequence,… such as 0:17,1:42"))
}

/// A stream of lines being made.
struct Lines {
    feed: Feed,
    device: Option<String>,
    form: BodyForm,
    left: Option<u64>,
    follow: bool,
    heartbeat: Option<Duration>,
    stop: CancellationToken,
    ended: bool,
}

impl Lines {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while !self.ended {
            if let Err(error) = self.gather(&mut out).await {
                self.fail(&error, &mut out);
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if !self.ended {
                self.wait(&mut out).await;
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Writes what is there, up to one piece.
    async fn gather(&mut self, out: &mut Vec<u8>) -> whimbrel::Result<()> {
        while out.len() < CHUNK_BYTES && !self.stop.is_cancelled() {
            if self.left == Some(0) {
                self.ended = true;
                break;
            }
            let Some(event) = self.feed.ready().await? else {
                self.ended = !self.follow;
                break;
            };
            if self.wants(&event) {
                line::write(&event, self.form, out)?;
                self.left = self.left.map(|left| left - 1);
            }
            // A filter that lets little through must not keep the thread.
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    fn wants(&self, event: &Event) -> bool {
        self.device.as_deref().is_none_or(|device| device == &*event.device)
    }

    /// Waits for events, the end of the hub, or the next heartbeat.
    async fn wait(&mut self, out: &mut Vec<u8>) {
        let heartbeat = self.heartbeat;
        let beat = async {
            match heartbeat {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        let waited = tokio::select! {
            // The stream ends; who follows it comes back and resumes.
            () = self.stop.cancelled() => {
                self.ended = true;
                return;
            }
            () = beat => {
                out.push(b'\n');
                return;
            }
            waited = self.feed.wait() => waited,
        };
        if let Err(error) = waited {
            self.fail(&error, out);
        }
    }

    /// The status is long gone: a last line tells what happened. A hub that stops is no error.
    fn fail(&mut self, error: &Error, out: &mut Vec<u8>) {
        self.ended = true;
        if error.kind() != ErrorKind::Closed {
            tracing::warn!(%error, "a stream of events failed");
            let line = serde_json::json!({ "error": FailureBody::from(error) });
            out.extend_from_slice(format!("{line}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn starting_points() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let position = |position| Some(From::Position(position));
        assert_eq!(From::read("beginning", now), position(Position::Beginning));
        assert_eq!(From::read("end", now), position(Position::End));
        assert_eq!(From::read("checkpoint", now), Some(From::Checkpoint));
        assert_eq!(From::read("sequence:7", now), position(Position::Sequence(7)));
        assert_eq!(From::read("offset:7", now), position(Position::Offset(7)));
        let hour = Duration::from_secs(3_600);
        assert_eq!(From::read("time:1970-01-01T01:00:00Z", now), position(Position::Time(UNIX_EPOCH + hour)));
        assert_eq!(From::read("ago:1h", now), position(Position::Time(now - hour)));
        for text in ["", "start", "sequence", "sequence:-1", "sequence:x", "time:yesterday", "ago:5", "end:1"]
        {
            assert_eq!(From::read(text, now), None, "{text}");
        }
    }

    #[test]
    fn positions_to_go_on_from() {
        assert_eq!(read_positions("0:17,3:42").unwrap(), BTreeMap::from([(0, 17), (3, 42)]));
        assert_eq!(read_positions("").unwrap(), BTreeMap::new());
        for text in ["0", "0:", ":1", "a:1", "0:-1", "0:1;1:2"] {
            assert!(read_positions(text).is_err(), "{text}");
        }
    }
}
