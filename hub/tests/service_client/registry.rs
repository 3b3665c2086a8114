//! The registry, through the client.

use whimbrel::{
    ErrorKind,
    service::{Authentication, DeviceIdentity, DeviceStatus, ModuleIdentity},
};

use super::World;

#[tokio::test]
async fn identities_are_created_changed_and_deleted_by_their_etags() {
    let world = World::new().await;
    let service = world.service().await;
    let registry = service.registry();
    let created = registry.create("d#1").await.unwrap();
    assert_eq!((created.id.as_str(), created.status), ("d#1", DeviceStatus::Enabled));
    let Authentication::Keys { primary, .. } = &created.authentication else { panic!("{created:?}") };
    let known = world.hub().registry().get("d#1").await.unwrap();
    assert_eq!(registry.connection_string(&created).unwrap(), known.connection_string());
    assert!(known.connection_string().contains(&primary.to_base64()));
    assert_eq!(registry.create("d#1").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(registry.get("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);

    let mut changed = registry.get("d#1").await.unwrap();
    changed.status = DeviceStatus::Disabled;
    changed.status_reason = Some("lost".into());
    let changed = registry.update(&changed).await.unwrap();
    assert_eq!((changed.status, changed.status_reason.as_deref()), (DeviceStatus::Disabled, Some("lost")));
    assert_eq!(changed.authentication, created.authentication, "the keys stay");
    assert!(!world.hub().registry().get("d#1").await.unwrap().device.enabled);
    let stale = registry.update(&created).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict, "somebody changed it meanwhile");
    assert_eq!(
        registry.delete("d#1", created.etag.as_deref()).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );

    let print = "ab".repeat(32);
    let authentication = Authentication::Thumbprints { primary: print.clone(), secondary: None };
    let device = DeviceIdentity::new("x509").with_authentication(authentication);
    let created = registry.create(device).await.unwrap();
    assert!(
        matches!(&created.authentication, Authentication::Thumbprints { primary, .. }
            if primary.eq_ignore_ascii_case(&print)),
        "{created:?}"
    );
    let mut ids: Vec<String> =
        registry.list(Some(100)).await.unwrap().into_iter().map(|device| device.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["d#1", "x509"]);
    registry.delete("d#1", changed.etag.as_deref()).await.unwrap();
    registry.delete("x509", None).await.unwrap();
    assert!(registry.list(Some(100)).await.unwrap().is_empty());
    service.close().await;
}

#[tokio::test]
async fn modules_live_below_their_device() {
    let world = World::new().await;
    let service = world.service().await;
    let registry = service.registry();
    registry.create("d1").await.unwrap();
    let created = registry.create_module(&ModuleIdentity::new("d1", "m1")).await.unwrap();
    assert_eq!((created.device.as_str(), created.id.as_str()), ("d1", "m1"));
    assert!(registry.module_connection_string(&created).unwrap().contains(";ModuleId=m1;"));
    let mut changed = registry.get_module("d1", "m1").await.unwrap();
    changed.managed_by = Some("me".into());
    let changed = registry.update_module(&changed).await.unwrap();
    assert_eq!(changed.managed_by.as_deref(), Some("me"));
    assert_eq!(registry.update_module(&created).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(registry.modules("d1").await.unwrap().len(), 1);
    registry.delete_module("d1", "m1", changed.etag.as_deref()).await.unwrap();
    assert_eq!(registry.get_module("d1", "m1").await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = registry.create_module(&ModuleIdentity::new("nobody", "m")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    service.close().await;
}

#[tokio::test]
async fn devices_are_found_page_by_page() {
    let world = World::new().await;
    let service = world.service().await;
    let registry = service.registry();
    for number in 0..5 {
        registry.create(format!("d{number}")).await.unwrap();
    }
    let (mut ids, mut continuation) = (Vec::new(), None);
    loop {
        let page = registry.query("SELECT * FROM devices", Some(2), continuation.as_deref()).await.unwrap();
        assert!(page.items.len() <= 2);
        ids.extend(page.items.iter().map(|item| item["deviceId"].as_str().unwrap().to_owned()));
        continuation = page.continuation;
        if continuation.is_none() {
            break;
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, ["d0", "d1", "d2", "d3", "d4"]);
    service.close().await;
}
