//! Starting, stopping, starting again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod http_support;

use http_support::{Fixture, lines};
use reqwest::Method;
use whimbrel::{ErrorKind, Message};
use whimbrel_hub::{Config, Hub, Listen, ServiceFile};

#[tokio::test]
async fn a_place_has_to_be_chosen() {
    let error = Hub::builder().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("data_dir"), "{error}");
}

#[tokio::test]
async fn a_restart_keeps_devices_keys_events_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Hub::builder().data_dir(folder.path()).start();
    let first = Fixture::over(start().await.unwrap());
    let secret = first.hub.registry().create("d").await.unwrap().connection_string();
    first.store("d", &[Message::telemetry("before")]).await;
    let owner = first.hub.service_connection_string().to_owned();
    let ca = first.hub.ca_certificate().unwrap();
    let partition = first.hub.events().partition_of("d");
    first.hub.events().set_checkpoint("$Default", partition, 0).await.unwrap();
    first.hub.stop().await.unwrap();

    let second = Fixture::over(start().await.unwrap());
    assert_eq!(second.hub.service_connection_string(), owner);
    assert_eq!(second.hub.ca_certificate().unwrap(), ca);
    assert_eq!(second.hub.registry().get("d").await.unwrap().connection_string(), secret);
    assert_eq!(second.hub.events().checkpoint("$Default", partition).await.unwrap(), Some(0));
    let places = second.store("d", &[Message::telemetry("after")]).await;
    assert_eq!(places[0].sequence, Some(1));
    let all = lines(second.request(Method::GET, "/v1/events").send().await.unwrap()).await;
    let texts: Vec<_> = all.iter().map(|line| line["body"]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["before", "after"]);
    second.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_belongs_to_one_hub_and_the_second_hears_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let first = Hub::builder().data_dir(folder.path()).start().await.unwrap();
    let error = Hub::builder().data_dir(folder.path()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    first.stop().await.unwrap();
    Hub::builder().data_dir(folder.path()).start().await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out_and_the_folder_is_given_free() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let start = |listen| Hub::builder().data_dir(folder.path()).mqtts(listen).start();
    let error = start(Listen::on(address)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    for part in [address.to_string().as_str(), "--mqtts", "WHIMBREL_HUB_MQTTS"] {
        assert!(error.message().contains(part), "{part} is not in {error}");
    }
    start(Listen::loopback(0)).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn unsafe_settings_do_not_start() {
    let error =
        Hub::builder().in_memory().http(Listen::on(([0, 0, 0, 0], 0).into())).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("https"), "{error}");
}

#[tokio::test]
async fn listeners_can_be_off() {
    let off = Listen::OFF;
    let hub = Hub::builder()
        .in_memory()
        .mqtt(off)
        .mqtts(off)
        .amqp(off)
        .amqps(off)
        .https(off)
        .start()
        .await
        .unwrap();
    assert_eq!((hub.mqtt_addr(), hub.mqtts_addr(), hub.https_addr()), (None, None, None));
    assert_eq!((hub.amqp_addr(), hub.amqps_addr()), (None, None));
    assert!(hub.http_addr().is_some());
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn the_service_file_lets_its_owner_in_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ServiceFile::read(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
    let hub = Hub::builder().data_dir(folder.path().join("deep/data")).start().await.unwrap();
    let folder = folder.path().join("deep/data");
    let file = ServiceFile::read(&folder).unwrap();
    assert_eq!(file.connection_string, hub.service_connection_string());
    assert_eq!(file.http.as_deref(), Some(format!("http://{}", hub.http_addr().unwrap()).as_str()));
    assert_eq!((file.mqtt, file.mqtts), (hub.mqtt_addr(), hub.mqtts_addr()));
    assert_eq!((file.amqp, file.amqps), (hub.amqp_addr(), hub.amqps_addr()));
    assert_eq!(std::fs::read_to_string(file.ca.unwrap()).unwrap(), hub.ca_certificate().unwrap().pem);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.join(ServiceFile::NAME)), 0o600);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("tls/ca-key.pem")), 0o600);
    }
    std::fs::write(folder.join(ServiceFile::NAME), "{\"connection_string\": \"SharedAccessKey=c2VjcmV0")
        .unwrap();
    let error = ServiceFile::read(&folder).unwrap_err();
    assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn https_shows_the_certificate_of_our_own_authority() {
    let fixture = Fixture::in_memory().await;
    let url = format!("https://localhost:{}/v1/health", fixture.hub.https_addr().unwrap().port());
    assert_eq!(fixture.http.get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stopped_hub_answers_nobody() {
    let fixture = Fixture::in_memory().await;
    let (http, base) = (fixture.http.clone(), fixture.base.clone());
    assert_eq!(http.get(format!("{base}/v1/health")).send().await.unwrap().status(), 200);
    fixture.hub.stop().await.unwrap();
    assert!(http.get(format!("{base}/v1/health")).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_dropped_hub_stops_listening() {
    let fixture = Fixture::in_memory().await;
    let address = fixture.hub.http_addr().unwrap();
    drop(fixture);
    // The listener goes with its task, which the runtime drops when it next runs.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn settings_of_the_builder() {
    let hub = Hub::builder().in_memory().set("partitions", "2").unwrap().start().await.unwrap();
    assert_eq!(hub.events().partitions().len(), 2);
    hub.stop().await.unwrap();
    assert!(Hub::builder().set("partition", "2").is_err());
    let mut config = Config::default();
    for name in ["mqtt", "mqtts", "amqp", "amqps", "http", "https"] {
        config.set(name, "127.0.0.1:0").unwrap();
    }
    config.set("memory", "true").unwrap();
    Hub::builder().config(config).start().await.unwrap().stop().await.unwrap();
}
