//! Builds plugin crates with cargo, and puts the compiled plugins into the tasks folder.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{
    DevError,
    crates::{Workspace, cargo},
};

/// A compiled plugin that is in the tasks folder.
#[derive(Debug)]
pub(super) struct Installed {
    /// Of its crate.
    pub(super) name: String,
    /// Where cargo put it.
    pub(super) built: PathBuf,
    /// Whether the tasks folder had another build of it.
    pub(super) changed: bool,
}

/// What is read of cargo's messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Makes the tasks folder and removes what no crate makes any more.
pub(super) fn prepare_folder(tasks: &Path, workspaces: &[Workspace]) -> Result<(), DevError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| DevError::Install { path, error }
    };
    fs::create_dir_all(tasks).map_err(failed(tasks))?;
    let _ = fs::write(tasks.with_file_name(".gitignore"), "*\n");
    let made =
        |name: &str| workspaces.iter().flat_map(|workspace| &workspace.crates).any(|plugin| plugin.library == name);
    for entry in fs::read_dir(tasks).map_err(failed(tasks))?.flatten() {
        if !entry.file_name().to_str().is_some_and(made) {
            fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
        }
    }
    Ok(())
}

/// Builds the plugins of a workspace; those that could be built are put into the tasks folder, whatever became of the
/// others. What cargo and the compiler have to say goes where they say it.
pub(super) async fn build(
    workspace: &Workspace,
    tasks: &Path,
    release: bool,
) -> Result<(ExitStatus, Vec<Installed>), DevError> {
    let mut command = cargo();
    command.args(["build", "--keep-going", "--message-format=json-render-diagnostics", "--manifest-path"]);
    command.arg(workspace.root.join("Cargo.toml"));
    workspace.names().for_each(|name| {
        command.args(["--package", name]);
    });
    if release {
        command.arg("--release");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(DevError::NoCargo)?;
    let mut installed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await.map_err(DevError::NoCargo)? {
            // A build script may print what is no message.
            if let Ok(message) = serde_json::from_str(&line) {
                installed.extend(install_from(&message, workspace, tasks)?);
            }
        }
    }
    Ok((child.wait().await.map_err(DevError::NoCargo)?, installed))
}

/// Installs the plugin that a message tells of, if it tells of one.
fn install_from(message: &Message, workspace: &Workspace, tasks: &Path) -> Result<Option<Installed>, DevError> {
    if message.reason != "compiler-artifact" {
        return Ok(None);
    }
    let Some(plugin) = workspace.crates.iter().find(|plugin| plugin.manifest == message.manifest_path) else {
        return Ok(None);
    };
    let Some(built) = message.filenames.iter().find(|path| path.ends_with(&plugin.library)) else { return Ok(None) };
    let path = tasks.join(&plugin.library);
    let changed = install(built, &path).map_err(|error| DevError::Install { path, error })?;
    Ok(Some(Installed { name: plugin.name.clone(), built: built.clone(), changed }))
}

/// Copies beside the target and renames, so that nobody ever sees half a plugin. Tells whether it is another build.
fn install(built: &Path, path: &Path) -> io::Result<bool> {
    let bytes = fs::read(built)?;
    if fs::read(path).is_ok_and(|installed| installed == bytes) {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.new"));
    fs::write(&unfinished, bytes)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o755))?;
    fs::rename(&unfinished, path)?;
    Ok(true)
}

/// The source files that went into a compiled plugin, from the file that cargo writes beside it.
pub(super) fn sources_of(built: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(built.with_extension("d")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, files)| parse_files(files)).collect()
}

/// Paths divided by blanks; a blank in a path has a backslash before it.
fn parse_files(files: &str) -> Vec<PathBuf> {
    files.replace("\\ ", "\0").split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_is_one_path() {
        assert_eq!(
            parse_files(r"/a/src/lib.rs /my\ code/x.html"),
            [Path::new("/a/src/lib.rs"), Path::new("/my code/x.html")]
        );
    }

    #[test]
    fn a_plugin_is_replaced_only_by_another_build_and_never_seen_by_halves() {
        let dir = tempfile::tempdir().unwrap();
        let (built, path) = (dir.path().join("libx.so"), dir.path().join("tasks.so"));
        fs::write(&built, "one").unwrap();
        assert!(install(&built, &path).unwrap());
        let first = fs::File::open(&path).unwrap();
        assert!(!install(&built, &path).unwrap());
        fs::write(&built, "two").unwrap();
        assert!(install(&built, &path).unwrap());
        assert_eq!(io::read_to_string(first).unwrap(), "one", "who has the old file open keeps it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
