//! What cargo says about this workspace.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::shell;

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A package in the dependency tree.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: Option<String>,
    pub(crate) folder: PathBuf,
}

impl Package {
    /// Name of its folder: how people call it.
    pub(crate) fn short_name(&self) -> String {
        let inside = self.folder.strip_prefix(root()).unwrap_or(&self.folder);
        inside
            .components()
            .next()
            .map_or_else(|| self.name.clone(), |part| part.as_os_str().to_string_lossy().into_owned())
    }
}

/// Every package the workspace's members need, on every platform; the members are those for which the flag is set.
pub(crate) fn packages() -> io::Result<Vec<(Package, bool)>> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root());
    let (good, text) = shell::output(&mut cargo)?;
    if !good {
        return Err(io::Error::other("cargo metadata failed"));
    }
    let metadata: Value = serde_json::from_str(&text)?;
    let members: Vec<&str> = list(&metadata, "workspace_members").filter_map(Value::as_str).collect();
    Ok(list(&metadata, "packages")
        .map(|package| {
            let id = text_of(package, "id");
            let folder = Path::new(&text_of(package, "manifest_path"))
                .parent()
                .map(Path::to_path_buf)
                .unwrap_or_default();
            let member = members.contains(&id.as_str());
            let licence = package.get("license").and_then(Value::as_str).map(str::to_owned);
            let (name, version) = (text_of(package, "name"), text_of(package, "version"));
            (Package { id, name, version, licence, folder }, member)
        })
        .collect())
}

/// The members of the workspace.
pub(crate) fn members() -> io::Result<Vec<Package>> {
    Ok(packages()?.into_iter().filter_map(|(package, member)| member.then_some(package)).collect())
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text_of(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Where cargo puts what it builds.
///
/// # Errors
/// Why that is not known, for people.
pub(crate) fn target_folder() -> Result<PathBuf, String> {
    let mut metadata = shell::cargo();
    metadata.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]).current_dir(root());
    let (_, text) = shell::output(&mut metadata).map_err(|error| error.to_string())?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let folder = metadata.get("target_directory").and_then(Value::as_str);
    folder.map(PathBuf::from).ok_or_else(|| "cargo metadata tells no target folder".to_owned())
}
