//! Identities, as JSON documents.

use pyo3::prelude::*;
use serde_json::Value;
use tokio::runtime::Handle;
use whimbrel::{
    Error, ErrorKind, Result,
    service::{self, DeviceIdentity, ModuleIdentity},
};
use whimbrel_bindings_support::{Bound as Here, guard};

use crate::{call::Call, convert, error::raised};

/// Creates, changes and deletes identities. Documents go in and out as text.
#[pyclass(frozen)]
pub(crate) struct Registry(Here<(Handle, service::Registry)>);

impl Registry {
    pub(crate) fn new(runtime: Handle, registry: service::Registry) -> Self {
        Self(Here::new((runtime, registry)))
    }

    /// A call that `work` does with the registry.
    fn call<T, F>(
        &self,
        py: Python<'_>,
        operation: &'static str,
        work: impl FnOnce(service::Registry) -> Result<F>,
    ) -> PyResult<Call>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let call = || {
            let (runtime, registry) = self.0.get()?;
            Ok(Call::new(operation, runtime.clone(), work(registry.clone())?))
        };
        raised(py, guard(operation, call))
    }
}

#[pymethods]
impl Registry {
    /// Creates a device.
    fn create(&self, py: Python<'_>, document: &str) -> PyResult<Call> {
        self.call(py, "registry.create", |registry| {
            let device = device(document)?;
            Ok(async move { registry.create(device).await.map(text) })
        })
    }

    /// A device.
    fn get(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<Call> {
        self.call(py, "registry.get", |registry| {
            let id = convert::text("registry.get", "id", id)?;
            Ok(async move { registry.get(&id).await.map(text) })
        })
    }

    /// Changes a device.
    fn update(&self, py: Python<'_>, document: &str) -> PyResult<Call> {
        self.call(py, "registry.update", |registry| {
            let device = device(document)?;
            Ok(async move { registry.update(&device).await.map(text) })
        })
    }

    /// Deletes a device.
    fn delete(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        etag: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        const OPERATION: &str = "registry.delete";
        self.call(py, OPERATION, |registry| {
            let id = convert::text(OPERATION, "id", id)?;
            let etag = etag.map(|etag| convert::text(OPERATION, "etag", etag)).transpose()?;
            Ok(async move { registry.delete(&id, etag.as_deref()).await })
        })
    }

    /// Some devices.
    fn list(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Call> {
        self.call(py, "registry.list", |registry| {
            Ok(async move {
                let devices = registry.list(limit).await?;
                Ok(devices.into_iter().map(text).collect::<Vec<_>>())
            })
        })
    }

    /// A page of what a query finds, and where the next one begins.
    fn query(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        page_size: Option<usize>,
        continuation: Option<String>,
    ) -> PyResult<Call> {
        const OPERATION: &str = "registry.query";
        self.call(py, OPERATION, |registry| {
            let query = convert::text(OPERATION, "query", query)?;
            Ok(async move {
                let page = registry.query(&query, page_size, continuation.as_deref()).await?;
                let documents: Vec<_> = page.items.iter().map(Value::to_string).collect();
                Ok((documents, page.continuation))
            })
        })
    }

    /// Creates a module.
    fn create_module(&self, py: Python<'_>, document: &str) -> PyResult<Call> {
        self.call(py, "registry.create_module", |registry| {
            let module = module(document)?;
            Ok(async move { registry.create_module(&module).await.map(module_text) })
        })
    }

    /// A module.
    fn get_module(&self, py: Python<'_>, device: &Bound<'_, PyAny>, id: &Bound<'_, PyAny>) -> PyResult<Call> {
        const OPERATION: &str = "registry.get_module";
        self.call(py, OPERATION, |registry| {
            let device = convert::text(OPERATION, "device_id", device)?;
            let id = convert::text(OPERATION, "id", id)?;
            Ok(async move { registry.get_module(&device, &id).await.map(module_text) })
        })
    }

    /// Changes a module.
    fn update_module(&self, py: Python<'_>, document: &str) -> PyResult<Call> {
        self.call(py, "registry.update_module", |registry| {
            let module = module(document)?;
            Ok(async move { registry.update_module(&module).await.map(module_text) })
        })
    }

    /// Deletes a module.
    fn delete_module(
        &self,
        py: Python<'_>,
        device: &Bound<'_, PyAny>,
        id: &Bound<'_, PyAny>,
        etag: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        const OPERATION: &str = "registry.delete_module";
        self.call(py, OPERATION, |registry| {
            let device = convert::text(OPERATION, "device_id", device)?;
            let id = convert::text(OPERATION, "id", id)?;
            let etag = etag.map(|etag| convert::text(OPERATION, "etag", etag)).transpose()?;
            Ok(async move { registry.delete_module(&device, &id, etag.as_deref()).await })
        })
    }

    /// The modules of a device.
    fn modules(&self, py: Python<'_>, device: &Bound<'_, PyAny>) -> PyResult<Call> {
        self.call(py, "registry.modules", |registry| {
            let device = convert::text("registry.modules", "device_id", device)?;
            Ok(async move {
                let modules = registry.modules(&device).await?;
                Ok(modules.into_iter().map(module_text).collect::<Vec<_>>())
            })
        })
    }

    /// Ends all commands of a device; how many.
    fn purge_commands(&self, py: Python<'_>, device: &Bound<'_, PyAny>) -> PyResult<Call> {
        self.call(py, "registry.purge_commands", |registry| {
            let device = convert::text("registry.purge_commands", "id", device)?;
            Ok(async move { registry.purge_commands(&device).await })
        })
    }

    /// The connection string of a device, or None.
    fn connection_string(&self, py: Python<'_>, document: &str) -> PyResult<Option<String>> {
        let say = || Ok(self.0.get()?.1.connection_string(&device(document)?));
        raised(py, guard("registry.connection_string", say))
    }

    /// The connection string of a module, or None.
    fn module_connection_string(&self, py: Python<'_>, document: &str) -> PyResult<Option<String>> {
        let say = || Ok(self.0.get()?.1.module_connection_string(&module(document)?));
        raised(py, guard("registry.connection_string", say))
    }
}

fn device(document: &str) -> Result<DeviceIdentity> {
    DeviceIdentity::from_document(parsed(document)?)
}

fn module(document: &str) -> Result<ModuleIdentity> {
    ModuleIdentity::from_document(parsed(document)?)
}

fn parsed(document: &str) -> Result<Value> {
    serde_json::from_str(document).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, "registry", "this is not the document of an identity")
            .caused_by(error)
    })
}

fn text(device: DeviceIdentity) -> String {
    device.to_document().to_string()
}

fn module_text(module: ModuleIdentity) -> String {
    module.to_document().to_string()
}
