//! What the running hosts of a tasks folder have of its files, for `taskbay plugins`.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    status_socket::{self, HostStatus},
    tasks::{FileReport, FileSnapshot, RefusalSnapshot, ServingSnapshot, ServingState},
};

/// The hosts that have a folder open.
#[derive(Debug)]
pub(super) struct RunningHosts(Vec<HostStatus>);

impl RunningHosts {
    /// Asks all hosts on this machine that this user may ask.
    pub(super) async fn of(folder: &Path) -> Self {
        let mut hosts = status_socket::ask().await;
        hosts.retain(|host| host.folder.is_of(folder));
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

    /// A line for each host that has the file.
    pub(super) fn lines_of(&self, report: &FileReport) -> Vec<String> {
        let build = report.build.map(|build| build.to_string());
        let line = |(process, file)| format!("host {process}: {}", sentence(file, build.as_deref()));
        self.of_file(&report.file).map(line).collect()
    }

    /// The same for machines: a list with an object for each host.
    pub(super) fn json_of(&self, file: &str) -> Value {
        self.of_file(file).map(|(process, file)| to_json(process, file)).collect()
    }

    /// What is to be said of the folder as a whole, and of files that it does not have any more.
    pub(super) fn remarks(&self, reports: &[FileReport]) -> Vec<String> {
        if self.0.is_empty() {
            return vec!["No running host was found that has this folder open.".to_owned()];
        }
        let mut remarks = Vec::new();
        for HostStatus { process, folder } in &self.0 {
            remarks.extend(folder.trouble.iter().map(|trouble| format!("host {process}: {trouble}")));
            let gone = |file: &&FileSnapshot| !reports.iter().any(|report| report.file == file.file);
            let gone = folder.files.iter().filter(gone).filter(|file| file.serving.is_some());
            remarks.extend(gone.map(|file| {
                let FileSnapshot { file: name, .. } = file;
                format!("host {process}: {name}, which is not there any more: {}", sentence(file, None))
            }));
        }
        remarks
    }
}

/// `serves this build, 2 jobs running; refused: …; next try in 4s`
fn sentence(file: &FileSnapshot, build: Option<&str>) -> String {
    let mut parts = Vec::new();
    match &file.serving {
        Some(ServingSnapshot { build: serving, state, running_jobs, .. }) => {
            let which = if build == Some(serving) { "this build".to_owned() } else { format!("build {serving}") };
            let jobs = if *running_jobs == 1 { "1 job".to_owned() } else { format!("{running_jobs} jobs") };
            parts.push(match state {
                ServingState::Serving => format!("serves {which}, {jobs} running"),
                ServingState::Restarting => format!("is starting {which} again after a crash"),
                ServingState::Quarantined { reason } => format!("has {which} in quarantine ({reason})"),
            });
        }
        None if file.refused.is_none() && !file.starting => parts.push("has not looked at it yet".to_owned()),
        None => {}
    }
    if let Some(RefusalSnapshot { reason, retry_in }) = &file.refused {
        let retry = retry_in.map_or_else(String::new, |wait| format!("; next try in {} s", wait.as_secs() + 1));
        parts.push(format!("rejected the current file: {reason}{retry}"));
    }
    if file.starting {
        parts.push("is starting a build".to_owned());
    }
    parts.join("; ")
}

fn to_json(process: u32, file: &FileSnapshot) -> Value {
    let mut object = json!({ "process": process, "starting": file.starting });
    if let Some(ServingSnapshot { build, state, tasks, running_jobs, crashes }) = &file.serving {
        let (state, reason) = match state {
            ServingState::Serving => ("serving", None),
            ServingState::Restarting => ("restarting", None),
            ServingState::Quarantined { reason } => ("quarantined", Some(reason)),
        };
        object["serving"] = json!({
            "build": build, "state": state, "reason": reason, "tasks": tasks, "running_jobs": running_jobs, "crashes": crashes,
        });
    }
    if let Some(RefusalSnapshot { reason, retry_in }) = &file.refused {
        object["refused"] = json!({ "reason": reason, "retry_in_seconds": retry_in.map(|wait| wait.as_secs_f64()) });
    }
    object
}
