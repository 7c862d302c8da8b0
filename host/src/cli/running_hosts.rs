//! What the running hosts of a tasks folder have of its files, for `taskbay plugins`.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use serde_json::{Value, json};

use crate::{
    status_socket::{self, HostStatus, own_user},
    tasks::{Conflict, FileReport, FileSnapshot, RefusalSnapshot, ServingSnapshot, ServingState, Verdict},
};

const NO_HOST: &str = "No running host was found that has this folder open.";
/// Said of a conflict that no host has decided.
const UNDECIDED: &str = "(no running host has decided; one that starts goes by the files' names)";

/// The hosts that have a folder open.
#[derive(Debug)]
pub(super) struct RunningHosts(Vec<HostStatus>);

impl RunningHosts {
    /// Asks all hosts on this machine that this user may ask.
    pub(super) async fn of(folder: &Path) -> Self {
        let mut hosts = status_socket::ask().await;
        // Root asks all users, and whoever does not own the folder may tell lies about it.
        let owner = std::fs::metadata(folder).map(|metadata| metadata.uid()).ok();
        let is_trusted = |user| user == 0 || user == own_user() || Some(user) == owner;
        hosts.retain(|host| is_trusted(host.user) && host.folder.is_of(folder));
        hosts.sort_by_key(|host| host.process);
        Self(hosts)
    }

    /// Whether any of them refuses a file or cannot run it.
    pub(super) fn refuse_any(&self) -> bool {
        let quarantined = |serving: &ServingSnapshot| matches!(serving.state, ServingState::Quarantined { .. });
        let troubled = |file: &FileSnapshot| file.refused.is_some() || file.serving.as_ref().is_some_and(quarantined);
        self.0.iter().any(|host| host.folder.trouble.is_some() || host.folder.files.iter().any(troubled))
    }

    fn of_file<'a>(&'a self, file: &'a str) -> impl Iterator<Item = (u32, &'a FileSnapshot)> + 'a {
        let one_of =
            move |host: &'a HostStatus| Some((host.process, host.folder.files.iter().find(|one| one.file == file)?));
        self.0.iter().filter_map(one_of)
    }

    /// Turns a conflict with another file into a verdict or a warning: as the hosts that have the file have decided, or else as one
    /// would that starts now.
    pub(super) fn decide_conflict(&self, report: &mut FileReport) {
        let Some(conflict) = report.conflict.take() else { return };
        let refusal = |(_, file): (u32, &FileSnapshot)| {
            file.refused.as_ref().filter(|_| file.serving.is_none()).map(|refused| refused.reason.clone())
        };
        let decisions: Vec<Option<String>> = self.of_file(&report.file).map(refusal).collect();
        match (decisions.as_slice(), conflict) {
            // What a host has made of it stands in that host's line.
            ([_, ..], _) => {
                if let [Some(reason), ..] = decisions.as_slice()
                    && decisions.iter().all(Option::is_some)
                {
                    report.verdict = Verdict::Refused(reason.clone());
                }
            }
            ([], Conflict::Won) => {}
            ([], Conflict::Refused(reason)) => report.verdict = Verdict::Refused(format!("{reason} {UNDECIDED}")),
            ([], Conflict::Shadowed(reason)) => report.warnings.push(reason),
        }
    }

    /// A line for each host that has the file.
    pub(super) fn lines_of(&self, report: &FileReport) -> Vec<String> {
        let build = report.build.map(|build| build.to_string());
        let told = match &report.verdict {
            Verdict::Refused(reason) => Some(reason.as_str()),
            Verdict::Loads(_) | Verdict::Skipped(_) => None,
        };
        let line = |(process, file)| format!("host {process}: {}", sentence(file, build.as_deref(), told));
        self.of_file(&report.file).map(line).collect()
    }

    /// The same for machines: a list with an object for each host.
    pub(super) fn json_of(&self, file: &str) -> Value {
        self.of_file(file).map(|(process, file)| to_json(process, file)).collect()
    }

    /// What hosts have of a folder that cannot be looked at, for this reason.
    pub(super) fn lines_without_folder(&self, reason: &str) -> Vec<String> {
        if self.0.is_empty() {
            return vec![NO_HOST.to_owned()];
        }
        let mut lines = Vec::new();
        for HostStatus { process, folder, .. } in &self.0 {
            let trouble = folder.trouble.iter().filter(|trouble| *trouble != reason);
            lines.extend(trouble.map(|trouble| format!("host {process}: {trouble}")));
            if folder.files.is_empty() {
                lines.push(format!("host {process}: serves nothing"));
            }
            lines.extend(folder.files.iter().map(|file| {
                let tasks = file.serving.as_ref().map(|serving| format!("; tasks: {}", serving.tasks.join(", ")));
                let FileSnapshot { file: name, .. } = file;
                format!("host {process}: {name}: {}{}", sentence(file, None, None), tasks.unwrap_or_default())
            }));
        }
        lines
    }

    /// The same for machines: an object for each file, as for files that can be looked at.
    pub(super) fn json_without_folder(&self, reason: &str) -> Vec<Value> {
        let files = self.0.iter().flat_map(|host| &host.folder.files);
        let files: BTreeMap<&str, &str> = files.map(|file| (file.file.as_str(), file.plugin.as_str())).collect();
        let object = |(file, plugin)| json!({ "file": file, "plugin": plugin, "ok": false, "reason": reason, "hosts": self.json_of(file) });
        files.into_iter().map(object).collect()
    }

    /// What is to be said of the folder as a whole, and of files that it does not have any more.
    pub(super) fn remarks(&self, reports: &[FileReport]) -> Vec<String> {
        if self.0.is_empty() {
            return vec![NO_HOST.to_owned()];
        }
        let mut remarks = Vec::new();
        for HostStatus { process, folder, .. } in &self.0 {
            remarks.extend(folder.trouble.iter().map(|trouble| format!("host {process}: {trouble}")));
            let gone = |file: &&FileSnapshot| !reports.iter().any(|report| report.file == file.file);
            let gone = folder.files.iter().filter(gone).filter(|file| file.serving.is_some());
            remarks.extend(gone.map(|file| {
                let FileSnapshot { file: name, .. } = file;
                format!("host {process}: {name}, which is not there any more: {}", sentence(file, None, None))
            }));
        }
        remarks
    }
}

/// `serves this build, 2 jobs running; refused: …; next try in 4s`. `told` is the reason of a refusal that stands above it.
fn sentence(file: &FileSnapshot, build: Option<&str>, told: Option<&str>) -> String {
    let mut parts = Vec::new();
    match &file.serving {
        Some(ServingSnapshot { build: serving, state, running_jobs, .. }) => {
            let which = if build == Some(serving) { "this build".to_owned() } else { format!("build {serving}") };
            let jobs = if *running_jobs == 1 { "1 job".to_owned() } else { format!("{running_jobs} jobs") };
            parts.push(match state {
                ServingState::Serving => format!("serves {which}, {jobs} running"),
                ServingState::Restarting => format!("is starting {which} again after a crash"),
                ServingState::WaitingForFile => format!("waits for its file to serve {which} again"),
                ServingState::Quarantined { reason } => format!("has {which} in quarantine ({reason})"),
            });
        }
        None if file.refused.is_none() && !file.starting => parts.push("has not looked at it yet".to_owned()),
        None => {}
    }
    if let Some(RefusalSnapshot { reason, retry_in }) = &file.refused {
        let retry = retry_in.map_or_else(String::new, |wait| format!("; next try in {} s", wait.as_secs() + 1));
        parts.push(if told == Some(reason) {
            format!("rejected the current file for this reason{retry}")
        } else {
            format!("rejected the current file: {reason}{retry}")
        });
    }
    if let Some((task, by)) = &file.shadowed {
        parts.push(format!("gives it no jobs of {task}, because {by} goes first: rename one of them"));
    }
    if file.starting {
        parts.push("is starting a build".to_owned());
    }
    parts.join("; ")
}

fn to_json(process: u32, file: &FileSnapshot) -> Value {
    let mut object = json!({ "process": process, "starting": file.starting });
    if let Some(ServingSnapshot { build, state, tasks, running_jobs, crashes, .. }) = &file.serving {
        let (state, reason) = match state {
            ServingState::Serving => ("serving", None),
            ServingState::Restarting => ("restarting", None),
            ServingState::WaitingForFile => ("waiting_for_file", None),
            ServingState::Quarantined { reason } => ("quarantined", Some(reason)),
        };
        object["serving"] = json!({
            "build": build, "state": state, "reason": reason, "tasks": tasks, "running_jobs": running_jobs, "crashes": crashes,
        });
    }
    if let Some(RefusalSnapshot { reason, retry_in }) = &file.refused {
        object["refused"] = json!({ "reason": reason, "retry_in_seconds": retry_in.map(|wait| wait.as_secs_f64()) });
    }
    if let Some((task, by)) = &file.shadowed {
        object["shadowed"] = json!({ "task": task, "by": by });
    }
    object
}
