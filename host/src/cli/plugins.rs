//! `taskbay plugins`: what each file of the tasks folder would do, and what running hosts have of it.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, Ending, note, options::FolderOptions, output::Text, print, print_json, running_hosts::RunningHosts,
};
use crate::{
    config::{Layer, Purpose},
    escape,
    plugin::{ManifestInfo, TaskSpec},
    tasks::{FileReport, FolderError, FolderReport, Kind, Verdict, inspect_folder, unknown_sections},
};

/// How much is shown of what a plugin says of itself, in characters.
const LONGEST_DESCRIPTION: usize = 400;
const LONGEST_VERSION: usize = 60;

/// Say what each file in the tasks folder would do, and what the running hosts have of it
///
/// Looks at the files as `taskbay run` would, without running any task: at plugins each in a process of its own. Names what
/// two files both have, too, and files that are neither plugins nor executables.
///
/// Then asks the hosts on this machine that have the folder open and run as this user or as root (root asks all): which build of
/// a file serves, why what the file holds now does not, and when that is tried again. A start-up is run by hosts alone, so only
/// they can tell that it failed. Where two files have the same task, what they have decided counts; without a host, it is told
/// what one that starts would decide. A folder that is missing or unsafe is an error; what hosts serve of it is listed even so.
///
/// The exit status is 1 if any of the files would be refused or is refused by a host, or if the folder or the allow-list cannot be
/// used.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay plugins
  taskbay plugins /srv/tasks --json")]
pub(super) struct Plugins {
    /// The folder with the plugins and executables [default: tasks]
    #[arg(value_name = "TASKS_DIR")]
    folder: Option<PathBuf>,
    /// Print JSON: a list with one object per file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: FolderOptions,
}

impl Plugins {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        layer.tasks_directory = self.folder.clone();
        self.trust.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let plugins = settings.plugins();
        let folder = settings.folder(Purpose::Production);
        let inspected = inspect_folder(&folder, &plugins, program()).await;
        let hosts = RunningHosts::of(&folder.path).await;
        let FolderReport { mut files, lax, unusable_list } = match inspected {
            Ok(report) => report,
            Err(error) => {
                show_without_folder(&hosts, &error, self.json)?;
                return Err(error.into());
            }
        };
        files.iter_mut().for_each(|report| hosts.decide_conflict(report));
        // Both beside the results, which may be read by a machine.
        if let Some(reason) = lax {
            note(format_args!("warning: the tasks folder {} is not safe: {reason}", folder.path.display()));
        }
        if let Some(list) = &unusable_list {
            note(format_args!(
                "error: nothing in the tasks folder {} would be loaded, because the allow-list {list}",
                folder.path.display()
            ));
            note("Write the list with `sha256sum` in that folder, or name another one with --manifest.");
        }
        let names: Vec<String> = files.iter().map(|report| report.plugin.clone()).collect();
        for section in unknown_sections(&plugins, &names) {
            note(format_args!("warning: {section}"));
        }
        let ending = show(&files, self.json, Some(&hosts))?;
        Ok(if unusable_list.is_some() || hosts.refuse_any() { Ending::Refusals } else { ending })
    }
}

/// Prints what hosts have of a folder that cannot be looked at.
fn show_without_folder(hosts: &RunningHosts, error: &FolderError, as_json: bool) -> Result<(), CliError> {
    let reason = error.to_string();
    if as_json {
        return print_json(&hosts.json_without_folder(&reason));
    }
    let mut text = Text::default();
    hosts.lines_without_folder(&reason).into_iter().for_each(|line| text.line(line));
    print(text)
}

/// The program that looks at a plugin: this one.
pub(super) fn program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Prints what was found, and ends accordingly.
pub(super) fn show(reports: &[FileReport], as_json: bool, hosts: Option<&RunningHosts>) -> Result<Ending, CliError> {
    if as_json {
        let list: Vec<Value> = reports.iter().map(|report| to_json(report, hosts)).collect();
        print_json(&list)?;
    } else {
        let mut text = match reports {
            [] => Text::from("no tasks: the folder has neither a plugin (.so) nor an executable file"),
            reports => table(reports, hosts),
        };
        hosts.iter().flat_map(|hosts| hosts.remarks(reports)).for_each(|remark| text.line(remark));
        print(text)?;
    }
    let refused = reports.iter().any(|report| matches!(report.verdict, Verdict::Refused(_)));
    Ok(if refused { Ending::Refusals } else { Ending::Success })
}

fn to_json(report: &FileReport, hosts: Option<&RunningHosts>) -> Value {
    let mut object = json!({
        "file": report.file, "plugin": report.plugin, "kind": kind(report),
        "build": report.build.map(|build| build.to_string()),
        "ok": matches!(report.verdict, Verdict::Loads(_)),
    });
    match &report.verdict {
        Verdict::Loads(manifest) => {
            if report.kind == Kind::Plugin {
                object["version"] = manifest.version.clone().into();
                object["sdk"] = manifest.sdk.clone().into();
                object["profile"] = manifest.profile.clone().into();
            }
            object["tasks"] = tasks_to_json(manifest);
        }
        Verdict::Refused(reason) | Verdict::Skipped(reason) => object["reason"] = reason.clone().into(),
    }
    if !report.warnings.is_empty() {
        object["warnings"] = report.warnings.clone().into();
    }
    if let Some(hosts) = hosts {
        object["hosts"] = hosts.json_of(&report.file);
    }
    object
}

fn tasks_to_json(manifest: &ManifestInfo) -> Value {
    let to_json = |task: &TaskSpec| {
        json!({
            "name": task.name,
            "description": task.description,
            "timeout": task.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
            "max_attempts": task.max_attempts,
            "schedules": task.schedules,
        })
    };
    manifest.tasks.iter().map(to_json).collect()
}

fn kind(report: &FileReport) -> &'static str {
    match (&report.verdict, report.kind) {
        (Verdict::Skipped(_), _) => "other",
        (_, Kind::Plugin) => "plugin",
        (_, Kind::Executable) => "executable",
    }
}

/// One line per file, and one below it per task, for the reason of its refusal, and for each warning.
fn table(reports: &[FileReport], hosts: Option<&RunningHosts>) -> Text {
    let width = |of: fn(&FileReport) -> &str| {
        reports.iter().map(|report| escape::line(of(report)).chars().count()).max().unwrap_or(0)
    };
    let (file, plugin) = (width(|report| &report.file).max(4), width(|report| &report.plugin).max(6));
    let mut text = Text::default();
    text.line(format_args!("{:file$}  {:plugin$}  {:12}  VERDICT", "FILE", "PLUGIN", "BUILD"));
    for report in reports {
        let build = report.build.map_or_else(|| "-".to_owned(), |build| build.to_string());
        let name = if report.plugin.is_empty() { "-".into() } else { escape::line(&report.plugin) };
        let verdict = verdict(report);
        text.line(format_args!("{:file$}  {name:plugin$}  {build:12}  {verdict}", escape::line(&report.file)));
        match &report.verdict {
            Verdict::Loads(manifest) => manifest.tasks.iter().for_each(|task| {
                let gap = if task.description.is_empty() { "" } else { "  " };
                text.line(format_args!("  {}{gap}{}", task.name, shortened(&task.description, LONGEST_DESCRIPTION)));
                task.schedules.iter().for_each(|schedule| text.line(format_args!("    schedule: {schedule}")));
            }),
            Verdict::Refused(reason) | Verdict::Skipped(reason) => text.line(format_args!("  {reason}")),
        }
        report.warnings.iter().for_each(|warning| text.line(format_args!("  warning: {warning}")));
        hosts.iter().flat_map(|hosts| hosts.lines_of(report)).for_each(|line| text.line(format_args!("  {line}")));
    }
    text
}

/// The beginning of a long text.
fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

fn verdict(report: &FileReport) -> String {
    match &report.verdict {
        Verdict::Loads(_) if report.kind == Kind::Executable => "ok: executable".to_owned(),
        Verdict::Loads(ManifestInfo { version, profile, tasks, .. }) => {
            let plural = if tasks.len() == 1 { "" } else { "s" };
            let (version, profile) = (shortened(version, LONGEST_VERSION), shortened(profile, LONGEST_VERSION));
            format!("ok: {} task{plural}, version {version}, {profile}", tasks.len())
        }
        Verdict::Refused(_) => "refused".to_owned(),
        Verdict::Skipped(_) => "no task".to_owned(),
    }
}
