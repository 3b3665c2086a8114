//! `/v1/partitions` and `/v1/groups`: what the log holds, and how far each consumer group has got.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use whimbrel::{ErrorKind, wire::time};

use super::{
    Hub,
    failure::{Failure, FailureBody, Place, Unread},
};
use crate::{
    access::Right,
    events::{Ownership, OwnershipClaim},
};

/// Where tokens for reading events point to.
pub(super) const RESOURCE: &str = "messages/events";

pub(super) fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new()
        .routes(routes!(partitions))
        .routes(routes!(list))
        .routes(routes!(add))
        .routes(routes!(checkpoints))
        .routes(routes!(set_checkpoint))
        .routes(routes!(ownerships))
        .routes(routes!(claim))
}

/// What a partition holds.
#[derive(Serialize, ToSchema)]
#[schema(as = Partition)]
struct PartitionView {
    partition: u32,
    /// Oldest sequence number kept; `next` when the partition is empty.
    first: u64,
    /// Sequence number of the next event.
    next: u64,
    last_offset: Option<String>,
    last_enqueued_at: Option<String>,
}

/// Tells what each partition of the event log holds.
#[utoipa::path(
    get,
    operation_id = "list_partitions",
    path = "/partitions",
    tag = "events",
    responses(
        (status = 200, body = Vec<PartitionView>),
        (status = 401, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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

/// Lists the consumer groups.
#[utoipa::path(
    get,
    operation_id = "list_groups",
    path = "/groups",
    tag = "events",
    responses(
        (status = 200, body = Vec<String>),
        (status = 401, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn list(State(hub): State<Hub>, headers: HeaderMap) -> Result<Json<Vec<String>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    Ok(Json(hub.events.groups().await?))
}

/// Adds a consumer group. A hub has at most 20.
#[utoipa::path(
    put,
    operation_id = "add_group",
    path = "/groups/{group}",
    tag = "events",
    params(("group" = String, Path, description = "Name of the consumer group, in any case")),
    responses(
        (status = 201, description = "It is there now"),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 409, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn add(
    State(hub): State<Hub>,
    Place(group): Place<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    hub.events.add_group(&group).await?;
    Ok(StatusCode::CREATED)
}

/// Tells how far a group has got: the sequence number of the last event it has dealt with, of each partition; `null` where
/// it has none.
#[utoipa::path(
    get,
    operation_id = "list_checkpoints",
    path = "/groups/{group}/checkpoints",
    tag = "events",
    params(("group" = String, Path, description = "Name of the consumer group, in any case")),
    responses(
        (status = 200, body = BTreeMap<String, Option<u64>>),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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

/// How far a group has got in a partition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    /// Of the last event it has dealt with.
    sequence: u64,
}

/// Notes how far a group has got. It may go back.
#[utoipa::path(
    put,
    operation_id = "set_checkpoint",
    path = "/groups/{group}/checkpoints/{partition}",
    tag = "events",
    params(("group" = String, Path, description = "Name of the consumer group, in any case"), ("partition" = u32, Path, description = "Number of the partition")),
    request_body = Checkpoint,
    responses(
        (status = 204, description = "Stored"),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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
#[derive(Serialize, ToSchema)]
#[schema(as = Ownership)]
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

/// Tells which reader has which partition for a group.
#[utoipa::path(
    get,
    operation_id = "list_ownerships",
    path = "/groups/{group}/ownerships",
    tag = "events",
    params(("group" = String, Path, description = "Name of the consumer group, in any case")),
    responses(
        (status = 200, body = Vec<OwnershipView>),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn ownerships(
    State(hub): State<Hub>,
    Place(group): Place<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<OwnershipView>>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, RESOURCE)?;
    Ok(Json(hub.events.ownerships(&group).await?.into_iter().map(OwnershipView::from).collect()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnershipClaim)]
struct WantedOwnership {
    owner: String,
    epoch: u64,
    lasts_ms: u64,
}

/// Takes a partition for a reader of a group, or gives it up.
///
/// With `If-Match: "etag"`, or `If-None-Match: *` where there is no row yet; 412 when somebody was faster.
#[utoipa::path(
    put,
    operation_id = "claim_ownership",
    path = "/groups/{group}/ownerships/{partition}",
    tag = "events",
    params(
        ("group" = String, Path, description = "Name of the consumer group, in any case"),
        ("partition" = u32, Path, description = "Number of the partition"),
        ("If-Match" = Option<String>, Header, description = "The etag of the ownership as it was read"),
        ("If-None-Match" = Option<String>, Header, description = "*, where there is no ownership yet"),
    ),
    request_body = WantedOwnership,
    responses(
        (status = 200, body = OwnershipView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 412, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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
