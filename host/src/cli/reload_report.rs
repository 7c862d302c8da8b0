//! What a reload of the settings file has come to, in one line: what counts from when and for which plugin, and what does not.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::{
    config::{Changes, PluginChange},
    tasks::{AppliedSettings, AppliedTo, AppliesFrom},
};

/// Names of settings or plugins, each group for its own part of the line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    applied: Vec<String>,
    restarting: Vec<String>,
    next_job: Vec<String>,
    next_start: Vec<String>,
    without_plugin: Vec<String>,
    overridden: Vec<String>,
    at_restart: Vec<String>,
}

/// Logs the changes and what the tasks folder has made of them.
pub(super) fn tell(file: &str, changes: &Changes, applied: &AppliedSettings) {
    if changes.is_empty() {
        info!(event = "settings_reloaded", file, "reloaded {file}: nothing has changed");
        return;
    }
    let report = Report::of(changes, applied);
    let said = report.sentence();
    let Report { applied, restarting, next_job, next_start, without_plugin, overridden, at_restart } = report;
    let list = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
    let (applied, restarting, next_job) = (list(&applied), list(&restarting), list(&next_job));
    let (next_start, at_restart) = (list(&next_start), list(&at_restart));
    let without_effect = list(&[without_plugin, overridden].concat());
    if at_restart.is_none() && without_effect.is_none() {
        info!(event = "settings_reloaded", file, applied, restarting, next_job, next_start, "reloaded {file}; {said}");
    } else {
        warn!(
            event = "settings_reloaded",
            file, applied, restarting, next_job, next_start, without_effect, at_restart, "reloaded {file}; {said}"
        );
    }
}

impl Report {
    fn of(changes: &Changes, AppliedSettings(plugins): &AppliedSettings) -> Self {
        let mut report =
            Self { applied: changes.folder.clone(), at_restart: changes.at_restart.clone(), ..Self::default() };
        for (plugin, AppliedTo { keys, from }) in plugins.iter().filter(|(_, applied)| !applied.keys.is_empty()) {
            let group = match from {
                AppliesFrom::Restart => &mut report.restarting,
                AppliesFrom::NextJob => &mut report.next_job,
                AppliesFrom::NextStart => &mut report.next_start,
            };
            group.push(format!("{plugin} ({})", keys.join(", ")));
        }
        for change in changes.plugins.iter().filter(|change| !counts(change, plugins)) {
            match &change.plugin {
                Some(plugin) if !plugins.contains_key(plugin) => &mut report.without_plugin,
                _ => &mut report.overridden,
            }
            .push(change.path());
        }
        report
    }

    fn sentence(&self) -> String {
        let parts = [
            ("applied: ", &self.applied, ""),
            ("restarting with new settings: ", &self.restarting, ""),
            ("from the next job on: ", &self.next_job, ""),
            ("starting again with new settings: ", &self.next_start, ""),
            ("without effect: ", &self.without_plugin, " (the tasks folder has no such plugin)"),
            ("without effect: ", &self.overridden, " (no value in force changes)"),
            ("restart to apply: ", &self.at_restart, ""),
        ];
        let said = parts.iter().filter(|(_, names, _)| !names.is_empty());
        let said: Vec<String> =
            said.map(|(before, names, behind)| format!("{before}{}{behind}", names.join(", "))).collect();
        said.join("; ")
    }
}

/// Whether a changed setting changes anything for a plugin that there is.
fn counts(change: &PluginChange, plugins: &BTreeMap<String, AppliedTo>) -> bool {
    let of = |applied: &AppliedTo| applied.keys.contains(&change.key);
    match &change.plugin {
        Some(plugin) => plugins.get(plugin).is_some_and(of),
        None => plugins.values().any(of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_with_whom_it_concerns_and_from_when() {
        let change = |plugin: Option<&str>, key| PluginChange { plugin: plugin.map(str::to_owned), key };
        let changes = Changes {
            folder: vec!["tasks.rescan".to_owned()],
            plugins: vec![
                change(None, "timeout"),
                change(None, "processes"),
                change(Some("mail"), "user"),
                change(Some("nobody"), "user"),
            ],
            at_restart: vec!["worker.concurrency".to_owned()],
        };
        let plugins = [
            ("mail", vec!["user", "timeout"], AppliesFrom::Restart),
            ("slow", vec!["timeout"], AppliesFrom::NextJob),
            ("broken", vec!["timeout"], AppliesFrom::NextStart),
            ("own", vec![], AppliesFrom::Restart),
        ];
        let plugins = plugins.map(|(name, keys, from)| (name.to_owned(), AppliedTo { keys, from }));
        let report = Report::of(&changes, &AppliedSettings(plugins.into()));
        assert_eq!(
            report.sentence(),
            "applied: tasks.rescan; restarting with new settings: mail (user, timeout); from the next job on: slow (timeout); \
             starting again with new settings: broken (timeout); without effect: plugins.nobody.user (the tasks folder has no \
             such plugin); without effect: plugins.default.processes (no value in force changes); restart to apply: \
             worker.concurrency"
        );
    }
}
