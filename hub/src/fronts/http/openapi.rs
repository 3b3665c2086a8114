//! `GET /v1/openapi.json`: the document of all routes below `/v1`, put together from the routes themselves.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa::{
    OpenApi,
    openapi::{
        RefOr,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        server::Server,
    },
};

/// What the document says of all routes together.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Whimbrel hub",
        description = "What this hub offers below /v1 of its HTTP and HTTPS listeners. Devices and services made for Azure \
                       IoT Hub use the paths of that contract beside it.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "hub", description = "The hub itself"),
        (name = "devices", description = "Device identities"),
        (name = "commands", description = "Commands to devices, their outcomes and feedback"),
        (name = "events", description = "Events from devices")
    ),
    security(("token" = []), ("key" = []))
)]
struct Frame;

/// The document without routes.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    let mut document = Frame::openapi();
    document.servers = Some(vec![Server::new("/v1")]);
    let token = ApiKeyValue::with_description(
        "authorization",
        "SharedAccessSignature sr=…&sig=…&se=…&skn=POLICY: a token of a service policy",
    );
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("POLICY:KEY")
        .description(Some("The key of a service policy itself; over HTTPS or on the same machine only"));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    document
}

/// Says what an answer means where its route has nothing closer to say: the format wants a word for each.
pub(super) fn describe_answers(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    response.description = meaning(status).to_owned();
                }
            }
        }
    }
}

fn meaning(status: &str) -> &'static str {
    match status {
        "200" | "201" | "204" => "Done as asked",
        "400" => "Something in the request cannot be used; the message says what",
        "401" => "The credentials are wrong, have expired, or do not allow this",
        "404" => "There is no such thing",
        "409" => "It exists already",
        "412" => "What the request takes for granted does not hold: another etag is the current one",
        "413" => "The body is too large",
        "429" => "Too many requests; Retry-After says how long to wait",
        _ => "See the message",
    }
}

/// Answers with the document. It holds no secret, and whoever writes a client should not need one to read it.
pub(super) fn served(
    document: utoipa::openapi::OpenApi,
) -> impl Fn() -> std::future::Ready<Response> + Clone + Send + Sync + 'static {
    let text: Arc<Result<Bytes, String>> =
        Arc::new(document.to_json().map(Bytes::from).map_err(|error| error.to_string()));
    move || {
        std::future::ready(match &*text {
            Ok(text) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], text.clone()).into_response()
            }
            Err(error) => super::Failure::from(whimbrel::Error::new(
                whimbrel::ErrorKind::Internal,
                "hub.openapi",
                error.clone(),
            ))
            .into_response(),
        })
    }
}
