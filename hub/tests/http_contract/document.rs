//! `/v1/openapi.json` and the routes it describes.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::{http_support::Fixture, matrix::own_routes};

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

async fn document() -> (Fixture, Value) {
    let hub = Fixture::in_memory().await;
    let answer = hub.bare(Method::GET, "/v1/openapi.json").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let document = answer.json().await.unwrap();
    (hub, document)
}

fn operations(document: &Value) -> BTreeMap<(String, String), &Value> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods
                .filter(|(method, _)| METHODS.contains(&method.as_str()))
                .map(move |(method, operation)| ((method.clone(), path.clone()), operation))
        })
        .collect()
}

/// Our own routes are all in the document, the document has no others, and each one it has is there.
#[tokio::test]
async fn the_document_has_the_routes_and_the_routes_are_there() {
    let (hub, document) = document().await;
    let described: BTreeSet<_> = operations(&document).into_keys().collect();
    assert_eq!(described, own_routes(), "the matrix lists every route, each with who may use it");
    for (method, path) in described {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { "1" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = hub.bare(method.clone(), &format!("/v1{path}")).send().await.unwrap();
        assert!(
            matches!(answer.status().as_u16(), 200 | 400 | 401),
            "{method} {path} is not there: {}",
            answer.status()
        );
    }
}

/// A route that is added in another way would be missing from the document.
#[test]
fn own_routes_are_made_from_what_describes_them() {
    for (name, source) in [
        ("commands", include_str!("../../src/fronts/http/commands.rs")),
        ("devices", include_str!("../../src/fronts/http/devices.rs")),
        ("events", include_str!("../../src/fronts/http/events.rs")),
        ("groups", include_str!("../../src/fronts/http/groups.rs")),
        ("health", include_str!("../../src/fronts/http/health.rs")),
    ] {
        assert!(source.contains(".routes(routes!("), "{name}");
        assert!(!source.contains(".route("), "{name} has a route that describes itself nowhere");
    }
}

/// What any reader of the format relies on.
#[tokio::test]
async fn the_document_is_valid() {
    let (_hub, document) = document().await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["servers"][0]["url"], "/v1");
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    for requirement in document["security"].as_array().unwrap() {
        assert!(requirement.as_object().unwrap().keys().all(|name| schemes.contains_key(name)));
    }
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for ((method, path), operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{what}: its id is not its own"
        );
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{what}");
        assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{what}");
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let mut names = BTreeSet::new();
        for parameter in parameters {
            let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
            assert!(names.insert((name, place)), "{what}: {name} is there twice");
            assert!(parameter["schema"].is_object(), "{what}: {name} has no type");
            assert_eq!(place == "path", parameter["required"] == true, "{what}: {name}");
        }
        let in_path: BTreeSet<_> =
            names.iter().filter(|(_, place)| *place == "path").map(|(name, _)| *name).collect();
        let wanted: BTreeSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, wanted, "{what}: parameters of the path");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what}: no answer is good");
        for (status, response) in responses {
            assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{what}: {status}");
        }
        let open =
            operation["security"].as_array().is_some_and(|list| list[0].as_object().unwrap().is_empty());
        assert_eq!(open, path.starts_with("/health"), "{what}: who may");
        assert_eq!(!open, responses.contains_key("401"), "{what}: strangers are refused");
    }
    check_references(&document, &document);
}

/// Every `$ref` leads somewhere.
fn check_references(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref") {
                let pointer = target.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
            }
            members.values().for_each(|member| check_references(document, member));
        }
        Value::Array(members) => members.iter().for_each(|member| check_references(document, member)),
        _ => {}
    }
}
