//! `taskbay plugins`: what each file of the tasks folder would do.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Ending, print};
use crate::{
    config::{Layer, Purpose},
    plugin::ManifestInfo,
    tasks::{FileReport, inspect_folder},
};

/// Say what each file in the tasks folder would do: its tasks and build, or why it would be refused
///
/// Looks at the files as `taskbay run` would, each in a process of its own, without running any task. The exit status is 1
/// if any of the files would be refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay plugins
  taskbay plugins /srv/tasks --json")]
pub(super) struct Plugins {
    /// The folder with the compiled plugins [default: tasks]
    #[arg(value_name = "TASKS_DIR")]
    folder: Option<PathBuf>,
    /// Print JSON: a list with one object per file
    #[arg(long)]
    json: bool,
}

impl Plugins {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        layer.tasks_directory = self.folder.clone();
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let plugins = settings.plugins();
        let folder = settings.folder(Purpose::Production);
        let reports = inspect_folder(&folder.path, folder.strict_permissions, &plugins, program()).await?;
        show(&reports, self.json)
    }
}

/// The program that looks at a plugin: this one.
pub(super) fn program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Prints what was found, and ends accordingly.
pub(super) fn show(reports: &[FileReport], as_json: bool) -> Result<Ending, CliError> {
    if as_json {
        let list: Vec<Value> = reports.iter().map(to_json).collect();
        print(&format!("{:#}\n", Value::Array(list)))?;
    } else if reports.is_empty() {
        print("no plugins: the folder has no .so file\n")?;
    } else {
        print(&table(reports))?;
    }
    let refused = reports.iter().any(|report| report.verdict.is_err());
    Ok(if refused { Ending::Refusals } else { Ending::Success })
}

fn to_json(report: &FileReport) -> Value {
    let build = report.build.map(|build| build.to_string());
    match &report.verdict {
        Ok(manifest) => json!({
            "file": report.file, "plugin": report.plugin, "build": build, "ok": true,
            "version": manifest.version, "sdk": manifest.sdk, "profile": manifest.profile,
            "tasks": manifest.tasks.iter().map(|task| json!({
                "name": task.name,
                "description": task.description,
                "timeout": task.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
                "max_attempts": task.max_attempts,
                "schedules": task.schedules,
            })).collect::<Vec<_>>(),
        }),
        Err(reason) => json!({
            "file": report.file, "plugin": report.plugin, "build": build, "ok": false, "reason": reason,
        }),
    }
}

/// One line per file, and one below it per task or for the reason of its refusal.
fn table(reports: &[FileReport]) -> String {
    let width =
        |of: fn(&FileReport) -> &str| reports.iter().map(|report| of(report).chars().count()).max().unwrap_or(0);
    let (file, plugin) = (width(|report| &report.file).max(4), width(|report| &report.plugin).max(6));
    let mut text = format!("{:file$}  {:plugin$}  {:12}  VERDICT\n", "FILE", "PLUGIN", "BUILD");
    for report in reports {
        let build = report.build.map_or_else(|| "-".to_owned(), |build| build.to_string());
        let verdict = match &report.verdict {
            Ok(ManifestInfo { version, profile, tasks, .. }) => {
                format!(
                    "ok: {} task{}, version {version}, {profile}",
                    tasks.len(),
                    if tasks.len() == 1 { "" } else { "s" }
                )
            }
            Err(_) => "refused".to_owned(),
        };
        let _ = writeln!(text, "{:file$}  {:plugin$}  {build:12}  {verdict}", report.file, report.plugin);
        match &report.verdict {
            Ok(manifest) => manifest.tasks.iter().for_each(|task| {
                let gap = if task.description.is_empty() { "" } else { "  " };
                let _ = writeln!(text, "  {}{gap}{}", task.name, task.description);
                task.schedules.iter().for_each(|schedule| text.push_str(&format!("    schedule: {schedule}\n")));
            }),
            Err(reason) => {
                let _ = writeln!(text, "  {reason}");
            }
        }
    }
    text
}
