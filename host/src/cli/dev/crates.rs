//! Which plugin crates there are below a folder, as cargo sees them.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::process::Command;

use super::DevError;

/// The crate that every plugin depends on.
const PLUGIN_API: &str = "taskbay-plugin";

/// The plugin crates of one cargo workspace, which are built together.
#[derive(Debug, Clone)]
pub(super) struct Workspace {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
    pub(super) crates: Vec<PluginCrate>,
    /// The folders of all crates of the workspace, also those that plugins only use.
    pub(super) folders: Vec<PathBuf>,
}

/// A crate whose library is a plugin.
#[derive(Debug, Clone)]
pub(super) struct PluginCrate {
    pub(super) name: String,
    pub(super) manifest: PathBuf,
    /// What the compiled library is called.
    pub(super) library: String,
}

impl Workspace {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.crates.iter().map(|plugin| plugin.name.as_str())
    }
}

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

/// All workspaces that have plugin crates below a folder, in the order of their paths.
pub(super) async fn find(dir: &Path) -> Result<Vec<Workspace>, DevError> {
    let mut manifests = Vec::new();
    collect_manifests(dir, &mut manifests);
    manifests.sort();
    let mut known = HashSet::new();
    let mut workspaces = Vec::new();
    for manifest in manifests {
        if known.contains(&manifest) {
            continue;
        }
        let metadata = read(&manifest).await?;
        known.insert(metadata.workspace_root.join("Cargo.toml"));
        known.extend(metadata.packages.iter().map(|package| package.manifest_path.clone()));
        let workspace = plugins_of(metadata, dir);
        if !workspace.crates.is_empty() {
            workspaces.push(workspace);
        }
    }
    Ok(workspaces)
}

fn plugins_of(metadata: Metadata, dir: &Path) -> Workspace {
    let folder_of = |package: &Package| package.manifest_path.parent().map(Path::to_owned);
    let folders = metadata.packages.iter().filter_map(folder_of).collect();
    let crates = metadata
        .packages
        .into_iter()
        .filter(|package| package.manifest_path.starts_with(dir))
        .filter(|package| package.dependencies.iter().any(|dependency| dependency.name == PLUGIN_API))
        .filter_map(|package| {
            let library =
                package.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))?;
            let library = format!("lib{}.so", library.name.replace('-', "_"));
            Some(PluginCrate { name: package.name, manifest: package.manifest_path, library })
        })
        .collect();
    Workspace { root: metadata.workspace_root, target: metadata.target_directory, crates, folders }
}

/// Lists the manifests below a folder, without those that cargo and others keep for themselves.
fn collect_manifests(dir: &Path, manifests: &mut Vec<PathBuf>) {
    // A folder that cannot be read has no crates that could be built.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if name == "Cargo.toml" {
            manifests.push(entry.path());
        } else if !hidden
            && name != "target"
            && name != "node_modules"
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            collect_manifests(&entry.path(), manifests);
        }
    }
}

async fn read(manifest: &Path) -> Result<Metadata, DevError> {
    let mut cargo = cargo();
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]).arg(manifest);
    let output = cargo.output().await.map_err(DevError::NoCargo)?;
    let wrong = |reason: String| DevError::Manifest { manifest: manifest.to_owned(), reason };
    if !output.status.success() {
        return Err(wrong(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| wrong(io::Error::from(error).to_string()))
}

/// The cargo of the environment: the one that runs this, if one does.
pub(super) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.kill_on_drop(true);
    command
}
