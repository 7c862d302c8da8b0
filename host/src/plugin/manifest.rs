//! The manifest of a build, and its validation.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::crontab::parse_schedule;

/// A plugin's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestInfo {
    /// The name of its crate, which may differ from its file's.
    pub name: String,
    /// The version of its crate.
    pub version: String,
    /// The version of `taskbay-plugin`.
    pub sdk: String,
    /// `debug` or `release`.
    pub profile: String,
    /// The version of the plugin interface: major, minor.
    pub abi: (u32, u32),
    /// Whether a panic aborts its process.
    pub panic_abort: bool,
    /// Its tasks, called by their indexes.
    pub tasks: Vec<TaskSpec>,
}

/// A task, as declared by its plugin's build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The task's name in jobs.
    pub name: String,
    /// One line of description; may be empty.
    pub description: String,
    /// The time limit of a job.
    pub timeout: Option<Duration>,
    /// The attempt after which a job fails for good, even if it was added with more.
    pub max_attempts: Option<u32>,
    /// Its schedules: crontab lines without the task's name.
    #[serde(default)]
    pub schedules: Vec<String>,
}

/// The maximum number of tasks of a plugin; more indicate a broken file.
pub(super) const MAX_TASKS: usize = 10_000;
/// The maximum length of a task's name in the database, in characters.
pub const MAX_NAME_CHARS: usize = 128;

impl ManifestInfo {
    /// Checks the rules for plugins; the error names the broken rule.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.tasks.is_empty() {
            return Err("declares no task: name at least one in plugin!(…)".to_owned());
        }
        let mut seen = HashSet::new();
        for task in &self.tasks {
            let name = &task.name;
            if name.is_empty() {
                return Err("declares a task with an empty name: give it one".to_owned());
            }
            let chars = name.chars().count();
            if chars > MAX_NAME_CHARS {
                return Err(format!(
                    "declares a task whose name has {chars} characters ({name:.40}…): the database takes up to {MAX_NAME_CHARS}"
                ));
            }
            if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(format!(
                    "declares the task {name:?}: a task's name must not contain spaces or control characters"
                ));
            }
            if !seen.insert(name) {
                return Err(format!("declares the task {name:?} twice: rename one of the two"));
            }
        }
        self.validate_schedules()
    }

    fn validate_schedules(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for task in &self.tasks {
            for schedule in &task.schedules {
                let item = parse_schedule(&task.name, schedule).map_err(|error| {
                    format!(
                        "declares the schedule {schedule:?} for the task {:?}, which cannot be used: {error}",
                        task.name
                    )
                })?;
                if !seen.insert(item.identifier.clone()) {
                    return Err(format!(
                        "declares two schedules with the id {:?}: give one of them another with ?id=",
                        item.identifier
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(names: &[&str]) -> ManifestInfo {
        let task = |name: &&str| TaskSpec {
            name: (*name).to_owned(),
            description: String::new(),
            timeout: None,
            max_attempts: None,
            schedules: Vec::new(),
        };
        ManifestInfo {
            name: "p".into(),
            version: "1.0.0".into(),
            sdk: "0.1.0".into(),
            profile: "debug".into(),
            abi: (1, 0),
            panic_abort: false,
            tasks: names.iter().map(task).collect(),
        }
    }

    #[test]
    fn names_as_people_write_them_are_accepted() {
        let longest = "x".repeat(128);
        manifest(&["send_email", "mail/send:now-1.2", "größe", &longest]).validate().unwrap();
    }

    #[test]
    fn schedules_that_cannot_be_used_are_refused() {
        let scheduled = |schedules: &[&str]| {
            let mut manifest = manifest(&["a", "b"]);
            manifest.tasks[0].schedules = schedules.iter().map(|&schedule| schedule.to_owned()).collect();
            manifest
        };
        scheduled(&["*/5 * * * *", "0 4 * * * ?id=early&fill=1d {x: 1}"]).validate().unwrap();
        for (schedules, text) in [
            (&["61 * * * *"][..], "\"61 * * * *\" for the task \"a\""),
            (&["0 4 * * *", "0 5 * * *"], "two schedules with the id \"a\""),
            (&["0 4 * * * ?id=x", "0 5 * * * ?id=x"], "two schedules with the id \"x\""),
        ] {
            let error = scheduled(schedules).validate().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn each_rule_is_named_when_broken() {
        let too_long = "x".repeat(129);
        for (names, text) in [
            (&[][..], "declares no task"),
            (&[""], "empty name"),
            (&["a b"], "spaces or control"),
            (&["a\0b"], "spaces or control"),
            (&[too_long.as_str()], "129 characters"),
            (&["a", "b", "a"], "\"a\" twice"),
        ] {
            let error = manifest(names).validate().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
