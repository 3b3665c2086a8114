//! Checkpoints at our hub, over HTTP: `docs/http.md`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Checkpoint, CheckpointStore, Claim, Ownership};
use crate::{
    ErrorKind, Result,
    service::{
        ServiceClient,
        web::{Call, Web},
    },
    wire::percent,
};

/// Keeps checkpoints and ownerships at the hub itself, for readers on any number of machines. Our hub only: Azure IoT Hub
/// keeps none.
#[derive(Clone, Debug)]
pub struct HubCheckpoints(Arc<Web>);

impl HubCheckpoints {
    /// At the hub of `client`.
    pub fn new(client: &ServiceClient) -> Self {
        Self(client.0.web.clone())
    }
}

/// An ownership as the hub writes it.
#[derive(Deserialize)]
struct Row {
    partition: u32,
    owner: String,
    epoch: u64,
    etag: String,
    expires_in_ms: u64,
}

impl From<Row> for Ownership {
    fn from(row: Row) -> Self {
        let Row { partition, owner, epoch, etag, expires_in_ms } = row;
        Self { partition, owner, epoch, etag, expires_in: Duration::from_millis(expires_in_ms) }
    }
}

fn path(group: &str, rest: &str) -> String {
    format!("/v1/groups/{}/{rest}", percent::encoded(group))
}

impl CheckpointStore for HubCheckpoints {
    fn checkpoints<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<BTreeMap<u32, Checkpoint>>> {
        Box::pin(async move {
            let path = path(group, "checkpoints");
            let stored: BTreeMap<u32, Option<u64>> =
                self.0.read(Call::new(OPERATION, Method::GET, &path)).await?;
            let known = stored.into_iter().filter_map(|(partition, sequence)| {
                Some((partition, Checkpoint { sequence: sequence?, offset: None }))
            });
            Ok(known.collect())
        })
    }

    fn set_checkpoint<'a>(
        &'a self,
        group: &'a str,
        partition: u32,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let path = path(group, &format!("checkpoints/{partition}"));
            let body = json!({"sequence": checkpoint.sequence});
            self.0.send(Call::new(OPERATION, Method::PUT, &path).body(body)).await.map(drop)
        })
    }

    fn ownerships<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Vec<Ownership>>> {
        Box::pin(async move {
            let path = path(group, "ownerships");
            let rows: Vec<Row> = self.0.read(Call::new(OPERATION, Method::GET, &path)).await?;
            Ok(rows.into_iter().map(Ownership::from).collect())
        })
    }

    fn claim<'a>(&'a self, group: &'a str, claim: Claim) -> BoxFuture<'a, Result<Option<Ownership>>> {
        Box::pin(async move {
            let Claim { partition, owner, epoch, lasts, etag } = claim;
            let path = path(group, &format!("ownerships/{partition}"));
            let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
            let body = json!({"owner": owner, "epoch": epoch, "lasts_ms": lasts_ms});
            let absent = [("if-none-match", "*".to_owned())];
            let etag = etag.map(|etag| format!("\"{etag}\""));
            let mut call = Call::new(OPERATION, Method::PUT, &path).body(body).condition(etag.as_deref());
            if etag.is_none() {
                call.headers = &absent;
            }
            match self.0.read::<Row>(call).await {
                Ok(row) => Ok(Some(row.into())),
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

const OPERATION: &str = "checkpoints.hub";
