//! What two files of one folder may not both have: a plugin's name, and a task.

use std::collections::BTreeMap;

use super::{known_file::KnownFile, listing::Kind};
use crate::plugin::{Image, TaskSpec};

/// Which other file has the same plugin name, as `x.so` and `libx.so` do, in a sentence.
pub(super) fn of_name(files: &BTreeMap<String, KnownFile>, file: &str, plugin: &str) -> Option<String> {
    let (other, _) = files.iter().find(|(other, known)| {
        let in_force = known.serving.is_some() || known.state.launch().is_some();
        *other != file && known.kind == Kind::Plugin && Image::plugin_name(other) == plugin && in_force
    })?;
    Some(name_is_taken(plugin, other))
}

pub(super) fn name_is_taken(plugin: &str, other: &str) -> String {
    format!("would be plugin {plugin}, which {other} is already: remove one of them, or rename it to another plugin")
}

pub(super) fn task_is_taken(task: &str, other: &str) -> String {
    format!(
        "has the task {task}, which {other} has already: rename the task in one of them, or remove one of the files"
    )
}

/// Which task of a build another file has, in a sentence.
pub(super) fn of_tasks(files: &BTreeMap<String, KnownFile>, file: &str, tasks: &[TaskSpec]) -> Option<String> {
    tasks.iter().find_map(|task| {
        // A plugin goes before an executable.
        let has_it = |known: &KnownFile| {
            known.kind == Kind::Plugin && known.tasks().iter().any(|theirs| theirs.name == task.name)
        };
        let (other, _) = files.iter().find(|(other, known)| *other != file && has_it(known))?;
        Some(task_is_taken(&task.name, other))
    })
}
