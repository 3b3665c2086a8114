//! Devices that connected lately, so that a returning fleet does not ask the database for each of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use whimbrel::Result;

use super::Device;

/// Bounded by two generations: when the young one is full it becomes the old one, and the old one is forgotten.
pub(super) struct Cache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    young: HashMap<Arc<str>, Arc<Device>>,
    old: HashMap<Arc<str>, Arc<Device>>,
    /// Counts changes: what was read before a change must not be kept after it.
    changes: u64,
}

impl Cache {
    /// Keeps `limit` to twice as many devices.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// The device, from here or else by `load`.
    pub(super) fn get_or_load(
        &self,
        id: &str,
        load: impl FnOnce() -> Result<Option<Device>>,
    ) -> Result<Option<Arc<Device>>> {
        let seen = {
            let mut inner = self.locked();
            if let Some(device) = inner.young.get(id) {
                return Ok(Some(Arc::clone(device)));
            }
            if let Some(device) = inner.old.remove(id) {
                inner.insert(self.limit, Arc::clone(&device));
                return Ok(Some(device));
            }
            inner.changes
        };
        let Some(device) = load()?.map(Arc::new) else { return Ok(None) };
        let mut inner = self.locked();
        if inner.changes == seen {
            inner.insert(self.limit, Arc::clone(&device));
        }
        Ok(Some(device))
    }

    /// To be called after each change of a device, before anybody is told of it.
    pub(super) fn forget(&self, id: &str) {
        let mut inner = self.locked();
        inner.changes += 1;
        inner.young.remove(id);
        inner.old.remove(id);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, limit: usize, device: Arc<Device>) {
        if self.young.len() >= limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(&device.id), device);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::Authentication, *};

    fn device(id: &str, etag: &str) -> Device {
        Device {
            id: id.into(),
            generation: "1".into(),
            etag: etag.into(),
            enabled: true,
            status_reason: None,
            status_changed_at: None,
            authentication: Authentication::CertificateAuthority,
            created_at: UNIX_EPOCH,
        }
    }

    fn etag(cache: &Cache, id: &str, stored: &str) -> String {
        cache.get_or_load(id, || Ok(Some(device(id, stored)))).unwrap().unwrap().etag.clone()
    }

    #[test]
    fn keeps_what_was_loaded_until_it_is_forgotten() {
        let cache = Cache::new(4);
        assert_eq!(etag(&cache, "a", "1"), "1");
        assert_eq!(etag(&cache, "a", "2"), "1");
        cache.forget("a");
        assert_eq!(etag(&cache, "a", "2"), "2");
    }

    #[test]
    fn does_not_keep_what_was_read_before_a_change() {
        let cache = Cache::new(4);
        let stale = cache.get_or_load("a", || {
            cache.forget("a");
            Ok(Some(device("a", "before")))
        });
        assert_eq!(stale.unwrap().unwrap().etag, "before");
        assert_eq!(etag(&cache, "a", "after"), "after");
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_in_use() {
        let cache = Cache::new(10);
        for round in 0..100 {
            etag(&cache, "busy", "first");
            etag(&cache, &format!("once-{round}"), "1");
        }
        let inner = cache.locked();
        assert!(inner.young.len() + inner.old.len() <= 20);
        drop(inner);
        assert_eq!(etag(&cache, "busy", "second"), "first");
    }
}
