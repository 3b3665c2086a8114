//! `GET /metrics`: figures in the text form of Prometheus, put together when they are asked for.

use std::sync::{Arc, atomic::AtomicU64};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use whimbrel::{Error, ErrorKind};

use super::{Hub, failure::Failure};
use crate::{access::Right, events::PartitionState};

/// Requests answered, by route, method and status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Family<RequestLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

/// Counts a request when its answer begins.
pub(super) async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    // The pattern, never the path itself: that would be a label for each device, and for each guess of a scanner.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| Arc::from("none"), |path| path.as_str().into());
    let method = match *request.method() {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = response.status().as_u16();
    requests.0.get_or_create(&RequestLabels { route, method, status }).inc();
    response
}

pub(super) async fn show(State(hub): State<Hub>, headers: HeaderMap) -> Result<Response, Failure> {
    if !hub.open_metrics {
        hub.authorize(&headers, Right::ServiceConnect, "")?;
    }
    let mut registry = Registry::with_prefix("whimbrel_hub");
    registry.register("http_requests", "Requests answered", hub.metrics.0.clone());
    events(&hub, &mut registry);
    devices(&hub, &mut registry).await?;
    mqtt(&hub, &mut registry);
    amqp(&hub, &mut registry);
    let mut page = String::new();
    text::encode(&mut page, &registry).map_err(|error| {
        Error::new(ErrorKind::Internal, "hub.metrics", "cannot be written").caused_by(error)
    })?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], page).into_response())
}

fn events(hub: &Hub, registry: &mut Registry) {
    let states = hub.events.partitions();
    let rows = |value: fn(&PartitionState) -> u64| {
        states.iter().map(|state| (state.partition.to_string(), value(state))).collect::<Vec<_>>()
    };
    counters(registry, "events_stored", "Events ever stored", "partition", rows(|state| state.next));
    gauges(
        registry,
        "events_kept",
        "Events that can be read",
        "partition",
        rows(|state| state.next - state.first),
    );
}

async fn devices(hub: &Hub, registry: &mut Registry) -> Result<(), Failure> {
    let counts = hub.registry.counts().await?;
    let rows = [("enabled", counts.enabled), ("disabled", counts.total - counts.enabled)];
    let rows = rows.map(|(status, count)| (status.to_owned(), count));
    gauges(registry, "devices", "Device identities", "status", rows);
    Ok(())
}

fn mqtt(hub: &Hub, registry: &mut Registry) {
    let metrics = hub.mqtt.metrics();
    for (name, help, counter) in [
        ("mqtt_connects", "MQTT sessions that were opened", &metrics.connects),
        ("mqtt_publishes", "Publications received", &metrics.publishes),
        ("mqtt_acknowledgements", "Publications acknowledged", &metrics.acknowledgements),
        ("mqtt_rejected", "Publications refused with a reason", &metrics.rejected),
        ("mqtt_commands_sent", "Commands sent over MQTT", &metrics.commands_sent),
        ("mqtt_commands_completed", "Commands completed over MQTT", &metrics.commands_completed),
        ("mqtt_commands_abandoned", "Commands abandoned over MQTT", &metrics.commands_abandoned),
        ("mqtt_commands_rejected", "Commands rejected over MQTT", &metrics.commands_rejected),
        ("mqtt_received_bytes", "Bytes read from MQTT sessions", &metrics.received_bytes),
        ("mqtt_sent_bytes", "Bytes written to MQTT sessions", &metrics.sent_bytes),
    ] {
        let total = Counter::<u64>::default();
        total.inc_by(counter.get());
        registry.register(name, help, total);
    }
    let named = |(name, count): (&str, u64)| (name.to_owned(), count);
    let refused = metrics.refused().map(|(reason, count)| named((reason.name(), count)));
    counters(registry, "mqtt_refused", "MQTT connections that never became a session", "reason", refused);
    let closed = metrics.closed().map(|(reason, count)| named((reason.name(), count)));
    counters(registry, "mqtt_closed", "MQTT sessions whose connection ended", "reason", closed);
    for (name, help, figure) in [
        ("mqtt_connections", "MQTT connections open now", hub.mqtt.open_connections()),
        ("mqtt_staged_bytes", "Bytes of events that wait for the disk now", hub.mqtt.staged_bytes()),
    ] {
        let now = Gauge::<u64, AtomicU64>::default();
        now.set(figure as u64);
        registry.register(name, help, now);
    }
}

fn amqp(hub: &Hub, registry: &mut Registry) {
    let metrics = hub.amqp.metrics();
    for (name, help, counter) in [
        ("amqp_connects", "AMQP connections that were opened", &metrics.connects),
        ("amqp_links", "AMQP links that were accepted", &metrics.links),
        ("amqp_refused_links", "AMQP links that were refused", &metrics.refused_links),
        ("amqp_events", "Events taken in over AMQP", &metrics.events),
        ("amqp_commands", "Commands taken in over AMQP", &metrics.commands),
        ("amqp_rejected", "AMQP messages rejected with a reason", &metrics.rejected),
        ("amqp_delivered", "Commands sent to devices over AMQP", &metrics.delivered),
        ("amqp_read", "Events sent to readers over AMQP", &metrics.read),
        ("amqp_received_bytes", "Bytes read from AMQP connections", &metrics.received_bytes),
        ("amqp_sent_bytes", "Bytes written to AMQP connections", &metrics.sent_bytes),
    ] {
        let total = Counter::<u64>::default();
        total.inc_by(counter.get());
        registry.register(name, help, total);
    }
    let named = |(name, count): (&str, u64)| (name.to_owned(), count);
    let refused = metrics.refused().map(|(reason, count)| named((reason.name(), count)));
    counters(registry, "amqp_refused", "AMQP connections that were never opened", "reason", refused);
    let closed = metrics.closed().map(|(reason, count)| named((reason.name(), count)));
    counters(registry, "amqp_closed", "AMQP connections that ended", "reason", closed);
    for (name, help, figure) in [
        ("amqp_connections", "AMQP connections open now", hub.amqp.open_connections()),
        ("amqp_devices", "Devices with an AMQP link now", hub.amqp.connected_devices()),
        (
            "amqp_staged_bytes",
            "Bytes of events from AMQP that wait for the disk now",
            hub.amqp.staged_bytes(),
        ),
    ] {
        let now = Gauge::<u64, AtomicU64>::default();
        now.set(figure as u64);
        registry.register(name, help, now);
    }
}

type Rows<F> = Family<[(&'static str, String); 1], F>;

/// Figures that are counted elsewhere, one for each value of a label.
fn counters(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    rows: impl IntoIterator<Item = (String, u64)>,
) {
    let family = Rows::<Counter>::default();
    for (value, count) in rows {
        family.get_or_create(&[(label, value)]).inc_by(count);
    }
    registry.register(name, help, family);
}

/// As [`counters`], for figures that also fall.
fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    rows: impl IntoIterator<Item = (String, u64)>,
) {
    let family = Rows::<Gauge<u64, AtomicU64>>::default();
    for (value, figure) in rows {
        family.get_or_create(&[(label, value)]).set(figure);
    }
    registry.register(name, help, family);
}
