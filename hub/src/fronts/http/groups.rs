//! `/v1/partitions` and `/v1/groups`: what the log holds, and how far each consumer group has got.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use whimbrel::wire::time;

use super::{
    Hub,
    failure::{Failure, Place, Unread},
};
use crate::access::Right;

/// Where tokens for reading events point to.
pub(super) const RESOURCE: &str = "messages/events";

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/partitions", get(partitions))
        .route("/groups", get(list))
        .route("/groups/{group}", put(add))
        .route("/groups/{group}/checkpoints", get(checkpoints))
        .route("/groups/{group}/checkpoints/{partition}", put(set_checkpoint))
}

#[derive(Serialize)]
struct PartitionView {
    partition: u32,
    /// Oldest sequence number kept; `next` when the partition is empty.
    first: u64,
    /// Sequence number of the next event.
    next: u64,
    last_offset: Option<String>,
    last_enqueued_at: Option<String>,
}

async fn partitions(State(hub): State<Hub>, headers: HeaderMap) -> Result<Json<Vec<PartitionView>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    let states = hub.events.partitions().into_iter().map(|state| PartitionView {
        partition: state.partition,
        first: state.first,
        next: state.next,
        last_offset: state.last_offset.map(|offset| offset.to_string()),
        last_enqueued_at: state.last_enqueued_at.map(time::format),
    });
    Ok(Json(states.collect()))
}

async fn list(State(hub): State<Hub>, headers: HeaderMap) -> Result<Json<Vec<String>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    Ok(Json(hub.events.groups().await?))
}

async fn add(
    State(hub): State<Hub>,
    Place(group): Place<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    hub.events.add_group(&group).await?;
    Ok(StatusCode::CREATED)
}

/// Partition → sequence number of the last event the group has dealt with; `null` when it has none.
async fn checkpoints(
    State(hub): State<Hub>,
    Place(group): Place<String>,
    headers: HeaderMap,
) -> Result<Json<BTreeMap<u32, Option<u64>>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    let mut checkpoints = BTreeMap::new();
    for state in hub.events.partitions() {
        checkpoints.insert(state.partition, hub.events.checkpoint(&group, state.partition).await?);
    }
    Ok(Json(checkpoints))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    sequence: u64,
}

async fn set_checkpoint(
    State(hub): State<Hub>,
    Place((group, partition)): Place<(String, u32)>,
    headers: HeaderMap,
    body: Unread,
) -> Result<StatusCode, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    let Checkpoint { sequence } = body.needed().await?;
    hub.events.set_checkpoint(&group, partition, sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}
