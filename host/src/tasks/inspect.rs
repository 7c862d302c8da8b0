//! What a file would do if it lay in the tasks folder, without serving it.

use std::{fs, io, path::Path, sync::Arc};

use super::{
    artifact,
    folder::{Folder, FolderError},
};
use crate::{
    config::PluginLookup,
    plugin::{BuildId, Image, ManifestInfo, probe},
};

/// What is known of one file.
#[derive(Debug)]
pub struct FileReport {
    pub file: String,
    pub plugin: String,
    /// Unless it could not be read.
    pub build: Option<BuildId>,
    /// What it says of itself, or why it would be refused.
    pub verdict: Result<ManifestInfo, String>,
}

/// Looks at each file of a folder, in the order in which they would be loaded.
pub async fn inspect_folder(
    path: &Path,
    strict: bool,
    plugins: &PluginLookup,
    program: &Path,
) -> Result<Vec<FileReport>, FolderError> {
    let (folder, _) = Folder::open(path, strict)?;
    let mut reports = Vec::new();
    for name in folder.list()? {
        let bytes = folder.open_file(&name).and_then(|mut file| file.read()).map_err(|error| error.to_string());
        reports.push(inspect(&name, bytes, plugins, program).await);
    }
    Ok(reports)
}

/// Looks at one file, wherever it is.
pub async fn inspect_file(path: &Path, plugins: &PluginLookup, program: &Path) -> FileReport {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder: name the files in it, or use `taskbay plugins`".to_owned(),
        _ => format!("cannot be read: {error}"),
    });
    inspect(&name, bytes, plugins, program).await
}

async fn inspect(name: &str, bytes: Result<Vec<u8>, String>, plugins: &PluginLookup, program: &Path) -> FileReport {
    let plugin = Image::plugin_name(name).to_owned();
    let mut build = None;
    let verdict = async {
        let bytes = bytes?;
        let hash = artifact::hash(&bytes);
        build = Some(hash);
        let artifact = artifact::verify(&bytes, hash).map_err(|unfit| unfit.to_string())?;
        let image = Image::seal(name, hash, &bytes[..artifact.loadable])
            .map_err(|error| format!("cannot be copied into memory: {error}"))?;
        probe(&Arc::new(image), plugins.get(&plugin), program).await.map_err(|error| error.to_string())
    }
    .await;
    FileReport { file: name.to_owned(), plugin, build, verdict }
}
