//! `/v1/partitions` and `/v1/groups`: what the log holds, and how far each consumer group has got.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use whimbrel::{ErrorKind, wire::time};

use super::{
    Hub,
    failure::{Failure, Place, Unread},
};
use crate::{
    access::Right,
    events::{Ownership, OwnershipClaim},
};

/// Where tokens for reading events point to.
pub(super) const RESOURCE: &str = "messages/events";

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/partitions", get(partitions))
        .route("/groups", get(list))
        .route("/groups/{group}", put(add))
        .route("/groups/{group}/checkpoints", get(checkpoints))
        .route("/groups/{group}/checkpoints/{partition}", put(set_checkpoint))
        .route("/groups/{group}/ownerships", get(ownerships))
        .route("/groups/{group}/ownerships/{partition}", put(claim))
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

/// Which reader has a partition.
#[derive(Serialize)]
struct OwnershipView {
    partition: u32,
    owner: String,
    epoch: u64,
    etag: String,
    /// Zero when it is over or was given up.
    expires_in_ms: u64,
}

impl From<Ownership> for OwnershipView {
    fn from(ownership: Ownership) -> Self {
        let Ownership { partition, owner, epoch, etag, expires_in } = ownership;
        let expires_in_ms = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX);
        Self { partition, owner, epoch, etag: etag.to_string(), expires_in_ms }
    }
}

async fn ownerships(
    State(hub): State<Hub>,
    Place(group): Place<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<OwnershipView>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    Ok(Json(hub.events.ownerships(&group).await?.into_iter().map(OwnershipView::from).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedOwnership {
    owner: String,
    epoch: u64,
    lasts_ms: u64,
}

/// With `If-Match: "etag"`, or `If-None-Match: *` where there is no row yet; 412 when somebody was faster.
async fn claim(
    State(hub): State<Hub>,
    Place((group, partition)): Place<(String, u32)>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Json<OwnershipView>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    let WantedOwnership { owner, epoch, lasts_ms } = body.needed().await?;
    let text = |name| headers.get(&name).and_then(|value| value.to_str().ok()).map(str::trim);
    let etag = match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, Some("*")) => None,
        (Some(etag), None) => match etag.trim_matches('"').parse() {
            Ok(etag) => Some(etag),
            // One of ours is a number; nothing has this one.
            Err(_) => return Err(overtaken()),
        },
        _ => {
            return Err(Failure::invalid(
                "send If-Match with the etag of the ownership, or If-None-Match: * where there is none yet",
            ));
        }
    };
    let claim = OwnershipClaim { partition, owner, epoch, lasts: Duration::from_millis(lasts_ms), etag };
    hub.events.claim(&group, claim).await?.map(|claimed| Json(claimed.into())).ok_or_else(overtaken)
}

fn overtaken() -> Failure {
    Failure::new(
        StatusCode::PRECONDITION_FAILED,
        ErrorKind::Conflict,
        "the ownership was changed meanwhile; read it again",
    )
}
