//! A suite that cannot fail is worthless: actors that lie are caught, and the scenarios, the schema and the skip file agree.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{path::Path, time::Duration};

use whimbrel_conformance::{actor::Language, play::play, scenario::Scenario, skips::Skips};

fn suite() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scenarios() -> Vec<Scenario> {
    Scenario::read_all(&suite().join("scenarios")).unwrap()
}

fn liar(lie: &str) -> Language {
    Language { name: "liar".into(), command: format!("'{}' {lie}", env!("CARGO_BIN_EXE_conformance-liar")) }
}

fn rust() -> Language {
    Language { name: "Rust".into(), command: format!("'{}'", env!("CARGO_BIN_EXE_conformance-actor")) }
}

#[test]
fn every_error_kind_is_provoked_or_skipped_and_every_skip_fits() {
    Skips::read(&suite().join("skip.toml"), &scenarios()).unwrap();
}

#[test]
fn titles_are_promises_of_their_own() {
    let mut titles: Vec<_> = scenarios().into_iter().map(|scenario| scenario.title).collect();
    let count = titles.len();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(titles.len(), count);
    assert!(count >= 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_says_ok_to_everything_passes_no_scenario() {
    let liar = liar("ok");
    let mut believed = Vec::new();
    for scenario in scenarios() {
        if play(&scenario, &liar, Duration::from_millis(300)).await.is_ok() {
            believed.push(scenario.name);
        }
    }
    assert!(believed.is_empty(), "a liar passes {believed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_says_nothing_or_is_none_fails() {
    let scenarios = scenarios();
    let scenario = scenarios.iter().find(|scenario| scenario.name == "offline-first").unwrap();
    let limit = Duration::from_millis(300);
    let silent = play(scenario, &liar("silent"), limit).await.unwrap_err();
    assert!(silent.why.contains("no answer within"), "{silent:?}");
    assert_eq!(silent.step, Some(1));
    let none = Language { name: "none".into(), command: "no-such-actor".into() };
    let none = play(scenario, &none, Duration::from_secs(10)).await.unwrap_err();
    assert!(none.why.contains("actor") || none.why.contains("pipe"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_that_expects_something_else_fails_at_its_step() {
    let limit = Duration::from_secs(60);
    for (steps, said) in [
        (
            "{ call = \"device.send\", on = \"d1\", args = { body = \"x\" }, error = \"CLOSED\" }",
            "expected the error CLOSED",
        ),
        (
            "{ call = \"device.account\", on = \"d1\", ok = { accepted = 1 } }",
            "ok.accepted: expected 1, seen 0",
        ),
        (
            "{ call = \"device.receipt\", on = \"d1\", args = { message_id = \"m\" }, ok = { found = true } }",
            "found",
        ),
        ("{ wait = \"nothing\" }", "no call nothing was started"),
        ("{ stored = \"d2\", bodies = [] }, { rising = [2, 1] }", "expected rising numbers"),
        (
            "{ call = \"device.flush\", on = \"d1\", args = { deadline_ms = 0 }, start = \"f\" }, { wait = \"f\" }, { pending = \"f\" }",
            "no call f",
        ),
    ] {
        let text = format!("title = \"a promise\"\nsteps = [{{ open = \"d1\" }}, {steps}]");
        let scenario = Scenario::parse("wrong", &text).unwrap();
        let failure = play(&scenario, &rust(), limit).await.unwrap_err();
        assert!(failure.why.contains(said), "{failure:?} does not say {said:?}");
        assert_eq!(failure.step, Some(scenario.steps.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_actor_passes_a_scenario() {
    let scenarios = scenarios();
    let scenario = scenarios.iter().find(|scenario| scenario.name == "offline-first").unwrap();
    play(scenario, &rust(), Duration::from_secs(60)).await.unwrap();
}
