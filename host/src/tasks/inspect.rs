//! What a file would do if it lay in the tasks folder, without serving it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use super::{
    artifact, conflicts,
    file_reader::{Fault, verify},
    folder::Folder,
    folder_error::FolderError,
    listing::{Kind, is_executable, is_plugin_path},
    permissions::unsafe_file_at,
    sections::{explain, plugin_of, settings_without_effect},
    trust::Trust,
};
use crate::{
    config::{FolderSettings, PluginLookup},
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
    /// What is lax about its permissions, and which of its settings do nothing.
    pub warnings: Vec<String>,
    /// What it and another file both want. A running host has decided by which came first.
    pub conflict: Option<Conflict>,
}

/// A conflict with another file, as a host would decide it that finds both when it starts: by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// This file goes first.
    Won,
    /// This file is refused, for this reason.
    Refused(String),
    /// This executable gets no jobs, for this reason.
    Shadowed(String),
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

/// What is known of a folder.
#[derive(Debug)]
pub struct FolderReport {
    /// In the order in which they would be loaded; what is no task comes last.
    pub files: Vec<FileReport>,
    /// What is lax about the permissions of the folder itself.
    pub lax: Option<String>,
    /// Which allow-list cannot be used, and why. Nothing would be loaded, whatever else is said of the files.
    pub unusable_list: Option<String>,
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

/// Looks at each file of a folder.
pub async fn inspect_folder(
    settings: &FolderSettings,
    plugins: &PluginLookup,
    program: &Path,
) -> Result<FolderReport, FolderError> {
    let (folder, lax) = Folder::open(&settings.path, settings.strict_permissions)?;
    let listing = folder.list()?;
    let with = Inspection::new(settings, plugins, program);
    let mut reports = Vec::new();
    for (name, candidate) in &listing.files {
        let mut warning = None;
        let bytes = folder.open_file(name, candidate).and_then(|mut file| {
            warning = file.warning.take();
            file.read()
        });
        let bytes = bytes.map_err(|error| error.to_string());
        let mut report = with.inspect(&folder.path_of(name), name, candidate.kind, bytes).await;
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
        conflict: None,
        file,
    }));
    Ok(FolderReport { files: reports, lax, unusable_list: with.unusable_list() })
}

/// Looks at one file, wherever it is. An allow-list has to have it under the name that it would have in the folder: that
/// which it has there, or else the last part of its path.
pub async fn inspect_file(
    path: &Path,
    settings: &FolderSettings,
    plugins: &PluginLookup,
    program: &Path,
) -> FileReport {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let below = absolute.strip_prefix(&settings.path).ok().or(path.file_name().map(Path::new));
    let name = below.unwrap_or(path).to_string_lossy().into_owned();
    let metadata = fs::metadata(path);
    let executable = !is_plugin_path(path) && metadata.as_ref().is_ok_and(is_executable);
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder: name the files in it, or use `taskbay plugins`".to_owned(),
        _ => format!("cannot be read: {error}"),
    });
    let kind = if executable { Kind::Executable } else { Kind::Plugin };
    let is_script = bytes.as_ref().is_ok_and(|bytes| bytes.starts_with(b"#!"));
    let with = Inspection::new(settings, plugins, program);
    let mut report = with.inspect(path, &name, kind, bytes).await;
    if !executable && is_script && !is_plugin_path(path) {
        report.refuse("is a script that is not executable: chmod +x it".to_owned());
    }
    let lax = metadata.ok().and_then(|metadata| unsafe_file_at(path, &metadata));
    report.warnings.extend(lax.map(|reason| format!("is refused where permissions are strict: {reason}")));
    report
}

/// What files are looked at with.
struct Inspection<'a> {
    trust: Trust,
    plugins: &'a PluginLookup,
    program: &'a Path,
}

impl<'a> Inspection<'a> {
    fn new(settings: &FolderSettings, plugins: &'a PluginLookup, program: &'a Path) -> Self {
        let mut trust = Trust::of(settings);
        trust.refresh();
        Self { trust, plugins, program }
    }

    fn unusable_list(&self) -> Option<String> {
        let (path, problem, _lax) = self.trust.list()?;
        problem.map(|problem| format!("{} {problem}", path.display()))
    }

    async fn inspect(&self, path: &Path, name: &str, kind: Kind, bytes: Result<Vec<u8>, String>) -> FileReport {
        let plugin = plugin_of(name, kind);
        let build = bytes.as_ref().ok().map(|bytes| artifact::hash(bytes));
        let verdict = async {
            let bytes = bytes.map_err(Verdict::Refused)?;
            let hash = artifact::hash(&bytes);
            let verified = verify(kind, &bytes).map_err(|fault| match fault {
                Fault::Library(reason) => Verdict::Skipped(reason),
                Fault::Short(reason) | Fault::Unfit(reason) => Verdict::Refused(reason),
            })?;
            // To ask a plugin what it is, its code has to run.
            if let Some(reason) = self.trust.refusal(path, name, &bytes, hash) {
                return Err(Verdict::Refused(reason));
            }
            if kind == Kind::Executable {
                return Ok(executable_manifest(&plugin));
            }
            let image = Image::seal(name, hash, &bytes[..verified.loadable])
                .map_err(|error| Verdict::Refused(format!("cannot be copied into memory: {error}")))?;
            probe(&Arc::new(image), self.plugins.get(&plugin), self.program)
                .await
                .map_err(|error| Verdict::Refused(explain(self.plugins, &plugin, &error)))
        }
        .await;
        let verdict = verdict.map_or_else(|verdict| verdict, Verdict::Loads);
        let warnings = settings_without_effect(self.plugins, &plugin, kind);
        FileReport { file: name.to_owned(), plugin, kind, build, verdict, warnings, conflict: None }
    }
}

/// Notes what one file has before another, in the order of the reports: a plugin is refused, an executable gets no jobs.
fn find_conflicts(reports: &mut [FileReport]) {
    let (mut plugins, mut tasks) = (BTreeMap::<String, String>::new(), BTreeMap::<String, String>::new());
    let mut winners = BTreeSet::new();
    for report in reports.iter_mut() {
        let (file, is_plugin) = (report.file.clone(), report.kind == Kind::Plugin);
        let owned = report.tasks().find_map(|task| Some((task.to_owned(), tasks.get(task)?.clone())));
        let same_name = plugins.get(&report.plugin).filter(|_| is_plugin && report.tasks().next().is_some());
        let (conflict, winner) = match (same_name, owned) {
            (Some(other), _) => (Conflict::Refused(conflicts::name_is_taken(&report.plugin, other)), other.clone()),
            (None, Some((task, other))) if is_plugin => {
                (Conflict::Refused(conflicts::task_is_taken(&task, &other)), other)
            }
            (None, Some((task, other))) => {
                let reason = format!("gets no jobs of {task}, because {other} goes first: rename one of them");
                (Conflict::Shadowed(reason), other)
            }
            (None, None) => {
                if is_plugin && report.tasks().next().is_some() {
                    plugins.insert(report.plugin.clone(), file.clone());
                }
                tasks.extend(report.tasks().map(|task| (task.to_owned(), file.clone())));
                continue;
            }
        };
        report.conflict = Some(conflict);
        winners.insert(winner);
    }
    for report in reports.iter_mut().filter(|report| winners.contains(&report.file)) {
        report.conflict.get_or_insert(Conflict::Won);
    }
}
