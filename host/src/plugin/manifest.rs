//! What a build says of itself, and the rules that it must keep.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::crontab::parse_schedule;

/// A plugin's own account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestInfo {
    /// The name of its crate, which need not be that of its file.
    pub name: String,
    /// The version of its crate.
    pub version: String,
    /// The version of the crate that it was written with.
    pub sdk: String,
    /// `debug` or `release`.
    pub profile: String,
    /// The plugin interface that it was built for: major, minor.
    pub abi: (u32, u32),
    /// Whether a panic ends its process.
    pub panic_abort: bool,
    /// Its tasks; their places are the indexes by which they are called.
    pub tasks: Vec<TaskSpec>,
}

/// A task of a plugin, as its build declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The identifier that jobs name.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// How long a job may run.
    pub timeout: Option<Duration>,
    /// At which attempt a job fails for good even if it was added with more.
    pub max_attempts: Option<u32>,
    /// When jobs of it are added by themselves: lines as in a crontab, without the task's name.
    #[serde(default)]
    pub schedules: Vec<String>,
}

/// More tasks than this in one plugin are taken for a broken file.
pub(super) const MAX_TASKS: usize = 10_000;
/// The longest task name, in characters, that the database takes.
pub const MAX_NAME_CHARS: usize = 128;

impl ManifestInfo {
    /// Says which rule the plugin breaks, if it breaks one.
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
