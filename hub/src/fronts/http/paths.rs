//! Paths of the contract as clients spell them: words in any case, ids as they are.

use std::borrow::Cow;

use axum::http::{Request, Uri, uri::PathAndQuery};

/// Words in the spelling of the routes; the others are spelled in lower case.
const SPELLED: [&str; 2] = ["serviceBound", "$iothub"];

/// The request with the path that routes know.
pub(super) fn canonical<B>(mut request: Request<B>) -> Request<B> {
    let path = request.uri().path();
    if let Cow::Owned(path) = spelled(path) {
        let mut parts = request.uri().clone().into_parts();
        let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
        parts.path_and_query = PathAndQuery::try_from(path + &query).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Borrowed when there is nothing to change.
fn spelled(path: &str) -> Cow<'_, str> {
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let segments: Vec<&str> = trimmed.split('/').skip(1).collect();
    let is =
        |place: usize, word: &str| segments.get(place).is_some_and(|part| part.eq_ignore_ascii_case(word));
    let is_id = |place: usize| place == 1 || (place == 3 && is(2, "modules"));
    if !(is(0, "devices")
        || is(0, "messages")
        || is(0, "statistics")
        || is(0, "$iothub")
        || is(0, "$servicebus"))
    {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for (place, segment) in segments.iter().enumerate() {
        out.push('/');
        if is(0, "devices") && is_id(place) {
            out.push_str(segment);
        } else {
            match SPELLED.iter().find(|word| word.eq_ignore_ascii_case(segment)) {
                Some(word) => out.push_str(word),
                None => out.push_str(&segment.to_ascii_lowercase()),
            }
        }
    }
    if out == path { Cow::Borrowed(path) } else { Cow::Owned(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_no_case_and_ids_have() {
        for (path, wanted) in [
            ("/Devices/D1", "/devices/D1"),
            ("/devices/", "/devices"),
            (
                "/DEVICES/D1/Messages/DeviceBound/AB-CD/Abandon",
                "/devices/D1/messages/devicebound/ab-cd/abandon",
            ),
            ("/devices/D/Modules/Modules/", "/devices/D/modules/Modules"),
            ("/devices/D/Modules/M%2b/Messages/Events", "/devices/D/modules/M%2b/messages/events"),
            ("/devices/Devices/commands", "/devices/Devices/commands"),
            ("/messages/servicebound/Feedback", "/messages/serviceBound/feedback"),
            ("/Statistics/Devices", "/statistics/devices"),
            ("/$IoTHub/WebSocket", "/$iothub/websocket"),
            ("/V1/devices", "/V1/devices"),
            ("/v1/devices/", "/v1/devices/"),
            ("/", "/"),
        ] {
            assert_eq!(spelled(path), wanted);
        }
        assert!(matches!(spelled("/devices/d1/messages/events"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_query_stays() {
        let request = Request::get("https://h/Devices/D/?top=1&A=b").body(()).unwrap();
        assert_eq!(canonical(request).uri(), "https://h/devices/D?top=1&A=b");
    }
}
