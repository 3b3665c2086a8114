//! Device identities: what is kept, what is refused, who is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::sync::Arc;

use whimbrel::{ErrorKind, Result, auth::Key};
use whimbrel_hub::{
    registry::{
        Authentication, Change, DeviceUpdate, KeySlot, ModuleUpdate, NewAuthentication, NewDevice,
        Registered, Registry,
    },
    store::{Embedded, MAX_MODULES, SessionRow, Store, StoreOptions},
};

fn registry() -> Registry {
    Registry::new(Embedded::open(&StoreOptions::default()).unwrap(), "hub.example")
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(outcome: Result<T>, kind: ErrorKind) {
    assert_eq!(outcome.unwrap_err().kind(), kind);
}

fn keys(registered: &Registered) -> (Key, Key) {
    match &registered.device.authentication {
        Authentication::Sas { primary, secondary } => (primary.clone(), secondary.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_device_is_created_found_and_deleted() {
    let registry = registry();
    let created = registry.create("d1").await.unwrap();
    let (primary, secondary) = keys(&created);
    assert_ne!(primary, secondary);
    assert!(created.device.enabled);
    let wanted = format!("HostName=hub.example;DeviceId=d1;SharedAccessKey={}", primary.to_base64());
    assert_eq!(created.connection_string(), wanted);

    let found = registry.get("d1").await.unwrap();
    assert_eq!(keys(&found), (primary, secondary));
    assert_eq!(found.device.etag, created.device.etag);
    assert_kind(registry.create("d1").await, ErrorKind::Conflict);
    assert_eq!(registry.get("d1").await.unwrap().device.etag, created.device.etag);

    registry.delete("d1", None).await.unwrap();
    assert_kind(registry.get("d1").await, ErrorKind::NotFound);
    assert_kind(registry.delete("d1", None).await, ErrorKind::NotFound);
    assert_kind(registry.set_enabled("d1", true, None).await, ErrorKind::NotFound);
    assert_kind(registry.rotate_key("d1", KeySlot::Primary, None).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn each_creation_has_a_generation_of_its_own() {
    let registry = registry();
    let mut seen = Vec::new();
    for _ in 0..50 {
        seen.push(registry.create("d1").await.unwrap().device.generation);
        registry.delete("d1", None).await.unwrap();
    }
    let numbers: Vec<u64> = seen.iter().map(|text| text.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_eq!(seen[0].len(), 18);
}

#[tokio::test]
async fn ids() {
    let registry = registry();
    let longest = "x".repeat(128);
    for good in ["a", "A", "a-b.c+d%e_f#g*h?i!j(k)l,m=n@o$p'q:r", "..", &longest] {
        assert_eq!(&*registry.create(good).await.unwrap().device.id, good);
        registry.get(good).await.unwrap();
    }
    let too_long = "x".repeat(129);
    for bad in ["", " ", "a b", "a/b", "a;b", "a\"b", "ä", "a\n", "a\0b", &too_long] {
        assert_kind(registry.create(bad).await, ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn changes_need_the_current_etag_when_one_is_given() {
    let registry = registry();
    let first = registry.create("d1").await.unwrap().device.etag;
    let second = registry.set_enabled("d1", false, Some(&first)).await.unwrap().device.etag;
    assert_ne!(first, second);
    assert_kind(registry.set_enabled("d1", true, Some(&first)).await, ErrorKind::Conflict);
    assert_kind(registry.rotate_key("d1", KeySlot::Primary, Some(&first)).await, ErrorKind::Conflict);
    assert_kind(registry.delete("d1", Some(&first)).await, ErrorKind::Conflict);
    assert!(!registry.get("d1").await.unwrap().device.enabled);

    let quoted = format!("\"{second}\"");
    let third = registry.set_enabled("d1", true, Some(&quoted)).await.unwrap().device.etag;
    for any in ["*", "\"*\""] {
        registry.set_enabled("d1", true, Some(any)).await.unwrap();
    }
    assert_kind(registry.delete("d1", Some(&third)).await, ErrorKind::Conflict);

    registry.delete("d1", Some("*")).await.unwrap();
    let again = registry.create("d1").await.unwrap().device.etag;
    assert!(![first, second, third].contains(&again));
}

#[tokio::test]
async fn lists_are_in_order_and_in_pages() {
    let registry = registry();
    for id in ["b", "a", "C", "d", "c"] {
        registry.create(id).await.unwrap();
    }
    registry.set_enabled("a", false, None).await.unwrap();
    let ids = |page: Vec<Registered>| -> Vec<String> {
        page.into_iter().map(|registered| registered.device.id.to_string()).collect()
    };
    assert_eq!(ids(registry.list(None, 10).await.unwrap()), ["C", "a", "b", "c", "d"]);
    assert_eq!(ids(registry.list(None, 2).await.unwrap()), ["C", "a"]);
    assert_eq!(ids(registry.list(Some("a"), 2).await.unwrap()), ["b", "c"]);
    assert_eq!(ids(registry.list(Some("d"), 2).await.unwrap()), [""; 0]);
    assert_eq!(ids(registry.list(None, 0).await.unwrap()), [""; 0]);
    let counts = registry.counts().await.unwrap();
    assert_eq!((counts.total, counts.enabled), (5, 4));
}

#[tokio::test]
async fn credentials_have_a_form() {
    let registry = registry();
    let sas = |primary: &[u8], secondary: &[u8]| Authentication::Sas {
        primary: Key::from_bytes(primary),
        secondary: Key::from_bytes(secondary),
    };
    registry.create_with("short", sas(&[1; 16], &[2; 16])).await.unwrap();
    registry.create_with("long", sas(&[1; 64], &[2; 64])).await.unwrap();
    for (primary, secondary) in [(&[1; 15][..], &[2; 32][..]), (&[1; 32], &[2; 67])] {
        assert_kind(registry.create_with("d", sas(primary, secondary)).await, ErrorKind::InvalidArgument);
    }
    let signed = |primary: &str| Authentication::SelfSigned { primary: primary.into(), secondary: None };
    let spelled = "aa:BB ".repeat(10);
    let registered = registry.create_with("thumb", signed(&spelled)).await.unwrap();
    let Authentication::SelfSigned { primary, .. } = &registered.device.authentication else { panic!() };
    assert_eq!(*primary, "AABB".repeat(10));
    for bad in ["", "aabb", &"xy".repeat(20)] {
        assert_kind(registry.create_with("d", signed(bad)).await, ErrorKind::InvalidArgument);
    }
    assert_kind(registry.rotate_key("thumb", KeySlot::Primary, None).await, ErrorKind::InvalidArgument);
    let changed =
        registry.set_authentication("thumb", Authentication::CertificateAuthority, None).await.unwrap();
    assert!(matches!(changed.device.authentication, Authentication::CertificateAuthority));
}

#[tokio::test]
async fn sessions_hear_of_what_revokes_and_of_nothing_else() {
    let registry = registry();
    let mut changes = registry.changes();
    registry.create("d1").await.unwrap();
    registry.set_enabled("d1", true, None).await.unwrap();
    assert!(changes.try_recv().is_err());

    registry.set_enabled("d1", false, None).await.unwrap();
    registry.rotate_key("d1", KeySlot::Secondary, None).await.unwrap();
    registry.set_authentication("d1", Authentication::CertificateAuthority, None).await.unwrap();
    assert_kind(registry.delete("d1", Some("other")).await, ErrorKind::Conflict);
    registry.delete("d1", None).await.unwrap();
    for _ in 0..4 {
        let Change::Revoked(id) = changes.try_recv().unwrap() else { panic!() };
        assert_eq!(&*id, "d1");
    }
    assert!(changes.try_recv().is_err());
}

/// A caller who goes away does not keep sessions from being told.
#[tokio::test]
async fn a_change_is_told_even_when_its_caller_gave_up() {
    let registry = registry();
    registry.create("d1").await.unwrap();
    let mut changes = registry.changes();
    let mut change = Box::pin(registry.set_enabled("d1", false, None));
    // Handed in, then dropped.
    assert!(futures_util::poll!(&mut change).is_pending());
    drop(change);
    let Change::Revoked(id) = changes.recv().await.unwrap() else { panic!() };
    assert_eq!(&*id, "d1");
    assert!(!registry.get("d1").await.unwrap().device.enabled);
}

#[tokio::test]
async fn devices_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
    let store = Embedded::open(&options).unwrap();
    let registry = Registry::new(Arc::<Embedded>::clone(&store), "hub.example");
    let before = registry.create("d1").await.unwrap();
    registry.create("d2").await.unwrap();
    let disabled = registry.set_enabled("d2", false, None).await.unwrap();
    registry.create("d3").await.unwrap();
    registry.delete("d3", None).await.unwrap();
    store.close().await.unwrap();
    assert_kind(registry.create("d4").await, ErrorKind::Closed);
    assert_kind(registry.get("d1").await, ErrorKind::Closed);
    drop((registry, store));

    let registry = Registry::new(Embedded::open(&options).unwrap(), "hub.example");
    let after = registry.get("d1").await.unwrap();
    assert_eq!(after.connection_string(), before.connection_string());
    assert_eq!(after.device.generation, before.device.generation);
    assert_eq!(after.device.created_at, before.device.created_at);
    assert_eq!(registry.get("d2").await.unwrap().device.etag, disabled.device.etag);
    assert_eq!(registry.list(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn several_things_change_at_once_and_only_what_matters_revokes() {
    let registry = registry();
    let reason = || Some("maintenance".to_owned());
    let authentication =
        || Authentication::Sas { primary: Key::from_bytes(&[1; 32]), secondary: Key::from_bytes(&[2; 32]) };
    let device = |enabled| NewDevice {
        id: "d1".into(),
        authentication: authentication(),
        enabled,
        status_reason: reason(),
    };
    let created = registry.add(device(false)).await.unwrap().device;
    assert_eq!((created.enabled, created.status_reason), (false, reason()));
    assert_eq!(created.status_changed_at, None);
    assert_kind(registry.add(device(true)).await, ErrorKind::Conflict);

    let mut changes = registry.changes();
    let update = |update| registry.update("d1", update, None);
    let enabled =
        update(DeviceUpdate { enabled: Some(true), status_reason: Some(None), ..DeviceUpdate::default() });
    let enabled = enabled.await.unwrap().device;
    assert_eq!((enabled.enabled, &enabled.status_reason), (true, &None));
    assert!(enabled.status_changed_at.is_some());
    let same = NewAuthentication::Exactly(authentication());
    let same = update(DeviceUpdate { authentication: Some(same), ..DeviceUpdate::default() }).await.unwrap();
    assert_ne!(same.device.etag, enabled.etag);
    assert_eq!(same.device.status_changed_at, enabled.status_changed_at);
    let other =
        || Authentication::Sas { primary: Key::generate().unwrap(), secondary: Key::generate().unwrap() };
    let kept = update(DeviceUpdate {
        authentication: Some(NewAuthentication::KeysOr(other())),
        ..DeviceUpdate::default()
    });
    assert_eq!(kept.await.unwrap().device.authentication, authentication());
    assert!(changes.try_recv().is_err(), "nothing that was connected has to leave");

    let none = NewAuthentication::Exactly(Authentication::None);
    update(DeviceUpdate { authentication: Some(none), ..DeviceUpdate::default() }).await.unwrap();
    assert!(matches!(changes.try_recv().unwrap(), Change::Revoked(id) if &*id == "d1"));
    let fresh = NewAuthentication::KeysOr(other());
    let fresh =
        update(DeviceUpdate { authentication: Some(fresh), ..DeviceUpdate::default() }).await.unwrap();
    assert!(matches!(fresh.device.authentication, Authentication::Sas { .. }), "it had no keys to keep");

    let long = DeviceUpdate { status_reason: Some(Some("x".repeat(129))), ..DeviceUpdate::default() };
    assert_kind(update(long).await, ErrorKind::InvalidArgument);
    assert_kind(registry.update("d2", DeviceUpdate::default(), None).await, ErrorKind::NotFound);
    assert_kind(registry.update("d1", DeviceUpdate::default(), Some("stale")).await, ErrorKind::Conflict);
}

#[tokio::test]
async fn modules_are_identities_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
    let store = Embedded::open(&options).unwrap();
    let registry = Registry::new(Arc::<Embedded>::clone(&store), "hub.example");
    let keys =
        || Authentication::Sas { primary: Key::generate().unwrap(), secondary: Key::generate().unwrap() };
    let unknown = registry.create_module("d1", "m1", keys(), None).await;
    assert_kind(unknown, ErrorKind::NotFound);
    let device = registry.create("d1").await.unwrap().device;
    let created = registry.create_module("d1", "m1", keys(), Some("me")).await.unwrap();
    assert_ne!(created.generation, device.generation);
    assert_eq!(created.managed_by.as_deref(), Some("me"));
    let again = registry.create_module("d1", "m1", keys(), None).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert!(again.details().iter().any(|(name, _)| *name == "module"));
    assert_kind(registry.create_module("d1", "a b", keys(), None).await, ErrorKind::InvalidArgument);

    let mut changes = registry.changes();
    let update = ModuleUpdate { managed_by: Some(None), ..ModuleUpdate::default() };
    let updated = registry.update_module("d1", "m1", update, Some(&created.etag)).await.unwrap();
    assert_eq!((updated.managed_by, &updated.authentication), (None, &created.authentication));
    assert!(changes.try_recv().is_err());
    let stale = registry.update_module("d1", "m1", ModuleUpdate::default(), Some(&created.etag)).await;
    assert_kind(stale, ErrorKind::Conflict);
    let update =
        ModuleUpdate { authentication: Some(NewAuthentication::Exactly(keys())), ..ModuleUpdate::default() };
    registry.update_module("d1", "m1", update, None).await.unwrap();
    let Change::ModuleRevoked { device, module } = changes.try_recv().unwrap() else { panic!() };
    assert_eq!((&*device, &*module), ("d1", "m1"));

    for index in 2..=MAX_MODULES {
        registry.create_module("d1", &format!("m{index}"), keys(), None).await.unwrap();
    }
    let full = registry.create_module("d1", "one-more", keys(), None).await.unwrap_err();
    assert!(full.details().iter().any(|(name, value)| *name == "limit" && value == "50"), "{full}");

    store.close().await.unwrap();
    drop((registry, store));
    let registry = Registry::new(Embedded::open(&options).unwrap(), "hub.example");
    assert_eq!(registry.modules("d1").await.unwrap().len(), MAX_MODULES);
    registry.delete_module("d1", "m1", None).await.unwrap();
    let missing = registry.module("d1", "m1").await.unwrap_err();
    assert!(missing.details().iter().any(|(name, _)| *name == "module"), "{missing}");
    assert_kind(registry.delete_module("d1", "m1", None).await, ErrorKind::NotFound);
    registry.delete("d1", None).await.unwrap();
    assert_kind(registry.modules("d1").await, ErrorKind::NotFound);
    registry.create("d1").await.unwrap();
    assert_eq!(registry.modules("d1").await.unwrap().len(), 0, "modules go with their device");
}

/// Concurrent creations share transactions, and each caller hears its own outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
    let registry = Registry::new(Embedded::open(&options).unwrap(), "hub.example");
    let create = |index: usize| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.create(&format!("d{:03}", index % 300)).await })
    };
    let tasks: Vec<_> = (0..600).map(create).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => created += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
    }
    assert_eq!(created, 300);
    assert_eq!(registry.counts().await.unwrap().total, 300);
}

fn session(generation: &str, subscriptions: u32) -> Option<SessionRow> {
    Some(SessionRow { generation: generation.into(), subscriptions })
}

#[tokio::test]
async fn what_is_kept_of_a_session_is_found_after_a_restart_and_goes_with_its_device() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
    let store = Embedded::open(&options).unwrap();
    let registry = Registry::new(store.clone(), "hub.example");
    let generation = registry.create("d1").await.unwrap().device.generation;
    registry.create("d2").await.unwrap();
    assert_eq!(store.session("d1", None).await.unwrap(), None);
    store.keep_session("d1", None, session(&generation, 1)).await.unwrap();
    store.keep_session("d1", None, session(&generation, 2)).await.unwrap();
    let module = registry.create_module("d1", "m", Authentication::None, None).await.unwrap().generation;
    store.keep_session("d1", Some("m"), session(&module, 3)).await.unwrap();
    store.keep_session("d1", Some("n"), session(&generation, 3)).await.unwrap();
    store.keep_session("d2", None, session(&generation, 4)).await.unwrap();
    store.keep_session("d3", None, session(&generation, 5)).await.unwrap();
    store.close().await.unwrap();
    drop((registry, store));

    let store = Embedded::open(&options).unwrap();
    let registry = Registry::new(store.clone(), "hub.example");
    assert_eq!(store.session("d1", None).await.unwrap(), session(&generation, 2));
    assert_eq!(store.session("d1", Some("m")).await.unwrap(), session(&module, 3));
    assert_eq!(store.session("d1", Some("n")).await.unwrap(), None, "no such module");
    assert_eq!(store.session("d2", None).await.unwrap(), None, "another generation than the device has");
    assert_eq!(store.session("d3", None).await.unwrap(), None, "no such device");
    store.keep_session("d1", Some("m"), None).await.unwrap();
    assert_eq!(store.session("d1", Some("m")).await.unwrap(), None);
    registry.delete("d1", None).await.unwrap();
    assert_eq!(store.session("d1", None).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_is_read_as_it_was_last_handed_in() {
    let store = Embedded::open(&StoreOptions::default()).unwrap();
    let registry = Registry::new(store.clone(), "hub.example");
    let generation = registry.create("d1").await.unwrap().device.generation;
    for round in 0..200 {
        // Dropped without being waited for: the order of the calls counts all the same.
        drop(store.keep_session("d1", None, session(&generation, round)));
        if round % 2 == 0 {
            drop(store.keep_session("d1", None, None));
            assert_eq!(store.session("d1", None).await.unwrap(), None);
        } else {
            assert_eq!(store.session("d1", None).await.unwrap(), session(&generation, round));
        }
    }
}
