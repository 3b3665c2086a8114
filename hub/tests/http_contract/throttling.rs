//! Who asks too often is told how long to wait.

use reqwest::{Method, Response, StatusCode};
use whimbrel::auth::{Key, SasToken};

use crate::http_support::{Fixture, number, refusal, soon};

/// Asks until it was too often: a slow machine may give a token back in between.
async fn refused(ask: impl AsyncFn() -> Response) -> Response {
    for _ in 0..20 {
        let answer = ask().await;
        if !answer.status().is_success() {
            return answer;
        }
    }
    panic!("nobody is ever told to wait");
}

#[tokio::test]
async fn a_device_that_asks_too_often_waits_and_others_do_not() {
    let hub = Fixture::with(&[("http-rate-device", "1")]).await;
    for id in ["d", "e"] {
        hub.hub.registry().create(id).await.unwrap();
    }
    let poll = async |id: &str| {
        let path = format!("/devices/{id}/messages/devicebound");
        hub.as_device(id, Method::GET, &path).await.send().await.unwrap()
    };
    assert_eq!(poll("d").await.status(), StatusCode::NO_CONTENT);
    let refused = refused(async || poll("d").await).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(number(refused).await, 429_001);
    assert_eq!(poll("e").await.status(), StatusCode::NO_CONTENT);
    // A stranger uses up nothing.
    let strange = Key::generate().unwrap();
    for _ in 0..5 {
        let token = SasToken::issue("localhost/devices/e", &strange, None, soon());
        let path = "/devices/e/messages/devicebound";
        let refused = hub.bare(Method::GET, path).header("authorization", token).send().await.unwrap();
        assert_eq!(number(refused).await, 401_003);
    }
    assert_eq!(poll("e").await.status(), StatusCode::NO_CONTENT);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(poll("d").await.status(), StatusCode::NO_CONTENT, "after the wait it goes on");
}

#[tokio::test]
async fn a_policy_that_asks_too_often_waits() {
    let hub = Fixture::with(&[("http-rate-policy", "1")]).await;
    let ask = async |path: &str| hub.request(Method::GET, path).send().await.unwrap();
    assert_eq!(ask("/v1/devices").await.status(), StatusCode::OK);
    let answer = refused(async || ask("/v1/devices").await).await;
    assert_eq!(answer.headers()["retry-after"], "1");
    let (status, name, _) = refusal(answer).await;
    assert_eq!((status, name.as_str()), (StatusCode::TOO_MANY_REQUESTS, "THROTTLED"));
    let answer = refused(async || ask("/devices").await).await;
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(number(answer).await, 429_001);
    let health = hub.bare(Method::GET, "/v1/health").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}
