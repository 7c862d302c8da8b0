//! What a file would do if it lay in the tasks folder, without serving it.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use super::{
    artifact,
    folder::{Folder, FolderError, unsafe_file},
    listing::{Kind, identifier, is_executable, is_plugin_path},
    program::{self, Unrunnable},
};
use crate::{
    config::PluginLookup,
    plugin::{BuildId, Image, ManifestInfo, executable_manifest, probe},
};

/// What is known of one file.
#[derive(Debug)]
pub struct FileReport {
    pub file: String,
    /// By which name its settings are found.
    pub plugin: String,
    pub kind: Kind,
    /// Unless it could not be read.
    pub build: Option<BuildId>,
    pub verdict: Verdict,
    /// What is lax about its permissions, and which of its tasks another file has.
    pub warnings: Vec<String>,
}

/// What would become of a file.
#[derive(Debug)]
pub enum Verdict {
    /// It would be loaded; this is what it says of itself.
    Loads(ManifestInfo),
    /// It would be refused, for this reason.
    Refused(String),
    /// It would not be looked at, for this reason.
    Skipped(String),
}

impl FileReport {
    fn refuse(&mut self, reason: String) {
        self.verdict = Verdict::Refused(reason);
    }

    fn tasks(&self) -> impl Iterator<Item = &str> {
        let tasks = match &self.verdict {
            Verdict::Loads(manifest) => manifest.tasks.as_slice(),
            Verdict::Refused(_) | Verdict::Skipped(_) => &[],
        };
        tasks.iter().map(|task| task.name.as_str())
    }
}

/// Looks at each file of a folder, in the order in which they would be loaded; what is no task comes last. The second value
/// says what is lax about the folder itself.
pub async fn inspect_folder(
    path: &Path,
    strict: bool,
    plugins: &PluginLookup,
    program: &Path,
) -> Result<(Vec<FileReport>, Option<String>), FolderError> {
    let (folder, lax) = Folder::open(path, strict)?;
    let listing = folder.list()?;
    let mut reports = Vec::new();
    for (name, candidate) in &listing.files {
        let mut warning = None;
        let bytes = folder.open_file(name, candidate).and_then(|mut file| {
            warning = file.warning.take();
            file.read()
        });
        let mut report =
            inspect(name, candidate.kind, bytes.map_err(|error| error.to_string()), plugins, program).await;
        report.warnings.extend(warning.map(|reason| format!("is loaded although it is not safe: {reason}")));
        reports.push(report);
    }
    reports.sort_by(|one, other| (one.kind, &one.file).cmp(&(other.kind, &other.file)));
    find_conflicts(&mut reports);
    reports.extend(listing.skipped.into_iter().map(|(file, skipped)| FileReport {
        plugin: String::new(),
        kind: Kind::Executable,
        build: None,
        verdict: Verdict::Skipped(skipped.reason),
        warnings: Vec::new(),
        file,
    }));
    Ok((reports, lax))
}

/// Looks at one file, wherever it is.
pub async fn inspect_file(path: &Path, plugins: &PluginLookup, program: &Path) -> FileReport {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let metadata = fs::metadata(path);
    let executable = !is_plugin_path(path) && metadata.as_ref().is_ok_and(is_executable);
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder: name the files in it, or use `taskbay plugins`".to_owned(),
        _ => format!("cannot be read: {error}"),
    });
    let kind = if executable { Kind::Executable } else { Kind::Plugin };
    let is_script = bytes.as_ref().is_ok_and(|bytes| bytes.starts_with(b"#!"));
    let mut report = inspect(&name, kind, bytes, plugins, program).await;
    if !executable && is_script && !is_plugin_path(path) {
        report.refuse("is a script that is not executable: chmod +x it".to_owned());
    }
    let lax = metadata.ok().and_then(|metadata| unsafe_file(&metadata));
    report.warnings.extend(lax.map(|reason| format!("is refused where permissions are strict: {reason}")));
    report
}

async fn inspect(
    name: &str,
    kind: Kind,
    bytes: Result<Vec<u8>, String>,
    plugins: &PluginLookup,
    program: &Path,
) -> FileReport {
    let plugin = match kind {
        Kind::Plugin => Image::plugin_name(name),
        Kind::Executable => identifier(name).to_owned(),
    };
    let build = bytes.as_ref().ok().map(|bytes| artifact::hash(bytes));
    let verdict = async {
        let bytes = bytes.map_err(Verdict::Refused)?;
        let hash = artifact::hash(&bytes);
        if kind == Kind::Executable {
            return match program::verify(&bytes) {
                Ok(()) => Ok(executable_manifest(&plugin)),
                Err(library @ Unrunnable::Library) => Err(Verdict::Skipped(library.to_string())),
                Err(unfit) => Err(Verdict::Refused(unfit.to_string())),
            };
        }
        let artifact = artifact::verify(&bytes, hash).map_err(|unfit| Verdict::Refused(unfit.to_string()))?;
        let image = Image::seal(name, hash, &bytes[..artifact.loadable])
            .map_err(|error| Verdict::Refused(format!("cannot be copied into memory: {error}")))?;
        probe(&Arc::new(image), plugins.get(&plugin), program)
            .await
            .map_err(|error| Verdict::Refused(error.to_string()))
    }
    .await;
    let verdict = verdict.map_or_else(|verdict| verdict, Verdict::Loads);
    FileReport { file: name.to_owned(), plugin, kind, build, verdict, warnings: Vec::new() }
}

/// Says of what one file has before another, in the order of the reports: a plugin is refused, an executable gets no jobs.
fn find_conflicts(reports: &mut [FileReport]) {
    let (mut plugins, mut tasks) = (BTreeMap::new(), BTreeMap::<String, String>::new());
    for report in reports {
        let (file, is_plugin) = (report.file.clone(), report.kind == Kind::Plugin);
        let owned = report.tasks().find_map(|task| Some((task.to_owned(), tasks.get(task)?.clone())));
        if is_plugin && let Some(other) = plugins.get(&report.plugin) {
            report.refuse(format!("would be plugin {}, which {other} is already", report.plugin));
        } else if let Some((task, other)) = owned {
            if is_plugin {
                report
                    .refuse(format!("has the task {task}, which {other} has already: rename the task in one of them"));
            } else {
                report.warnings.push(format!("gets no jobs of {task}, because {other} goes first: rename one of them"));
            }
        } else {
            if is_plugin && report.tasks().next().is_some() {
                plugins.insert(report.plugin.clone(), file.clone());
            }
            tasks.extend(report.tasks().map(|task| (task.to_owned(), file.clone())));
        }
    }
}
