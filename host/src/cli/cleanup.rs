//! `taskbay cleanup`: deletes what nobody needs any more.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    CliError, Ending,
    database::{Connected, explain},
    note,
    options::DatabaseOptions,
    print, print_json,
};
use crate::{
    admin::Admin,
    config::{FolderSettings, Layer, Purpose},
    queue::{CleanedUp, CleanupTask, Database, RowAccess},
    tasks::{Verdict, inspect_folder},
};

/// Delete jobs that failed for good, and the names of tasks and queues without jobs
///
/// The clean-ups, with graphile-worker's names and shorter ones: DELETE_PERMAFAILED_JOBS or failed-jobs deletes the jobs
/// that failed for good; GC_TASK_IDENTIFIERS or task-names forgets the names of tasks without jobs; GC_JOB_QUEUES or queues
/// forgets queues without jobs. They are done in this order.
///
/// Workers know tasks by the ids of their names, and a Node worker does not notice when a name is forgotten and entered again:
/// it never takes a job of that task until it is started again. So the tasks of the plugins in the tasks folder are kept;
/// name those of other workers with --keep. A task that has jobs is always kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay cleanup                                             queues without jobs
  taskbay cleanup failed-jobs queues
  taskbay cleanup GC_TASK_IDENTIFIERS --keep send_email --keep import_file")]
pub(super) struct Cleanup {
    /// What to clean up [default: GC_JOB_QUEUES]
    #[arg(value_name = "CLEANUP", value_delimiter = ',', value_parser = parse_cleanup)]
    tasks: Vec<CleanupTask>,
    /// A task whose name is kept even if it has no jobs; may be given several times
    #[arg(long, value_name = "TASK")]
    keep: Vec<String>,
    /// The folder with the plugins whose tasks are kept [default: tasks, if there is one]
    #[arg(long, value_name = "DIR")]
    tasks_dir: Option<PathBuf>,
    /// Print JSON: a list with one object per clean-up
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Cleanup {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        if self.tasks_dir.is_some() {
            layer.tasks_directory.clone_from(&self.tasks_dir);
        }
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let database = Database::new(connected.settings.clone())?;
        let tasks = if self.tasks.is_empty() { vec![CleanupTask::GcJobQueues] } else { self.tasks };
        clean_up(&database, &tasks, self.keep, settings, self.json).await
    }
}

/// Cleans up, keeping the names of the tasks in `keep` and of those in the tasks folder, and says what was deleted.
pub(super) async fn clean_up(
    database: &Database,
    tasks: &[CleanupTask],
    mut keep: Vec<String>,
    settings: Layer,
    as_json: bool,
) -> Result<Ending, CliError> {
    if tasks.contains(&CleanupTask::GcTaskIdentifiers) {
        keep.extend(tasks_in_folder(settings, keep.is_empty()).await?);
    }
    let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
    let mut admin = Admin::open(database, RowAccess::Work).await.map_err(explain(database))?;
    let done = admin.clean_up(tasks, &keep).await.map_err(explain(database))?;
    let all: Vec<String> = done.iter().map(sentence).collect();
    done.iter().for_each(tell_refused);
    let printed = match as_json {
        true => {
            let object = |done: &CleanedUp| json!({ "cleanup": done.task.as_str(), "deleted": done.deleted });
            print_json(&done.iter().map(object).collect::<Vec<_>>())
        }
        false => all.iter().try_for_each(|done| print(&format!("{done}\n"))),
    };
    printed.map_err(CliError::after_change(all.join(", ")))?;
    Ok(Ending::Success)
}

/// `deleted 1 job that failed for good`
fn sentence(done: &CleanedUp) -> String {
    let plural = if done.deleted == 1 { "" } else { "s" };
    match done.task {
        CleanupTask::DeletePermafailedJobs => format!("deleted {} job{plural} that failed for good", done.deleted),
        CleanupTask::GcTaskIdentifiers => format!("forgot {} task name{plural} without jobs", done.deleted),
        CleanupTask::GcJobQueues => format!("forgot {} queue{plural} without jobs", done.deleted),
    }
}

fn tell_refused(done: &CleanedUp) {
    for (id, reason) in &done.refused {
        note(format_args!("job {id} could not be deleted: {reason}"));
    }
}

/// The tasks that workers of this folder serve.
async fn tasks_in_folder(settings: Layer, needed: bool) -> Result<Vec<String>, CliError> {
    let plugins = settings.plugins();
    // Whatever others may do to the folder: only names are asked for.
    let folder = FolderSettings { strict_permissions: false, ..settings.folder(Purpose::Development) };
    if !folder.path.exists() {
        if needed {
            return Err(CliError::Usage(format!(
                "the tasks folder {} does not exist, so it is not known which names of tasks workers use: name the folder \
                 with --tasks-dir, or the tasks with --keep",
                folder.path.display()
            )));
        }
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    let found = inspect_folder(&folder, &plugins, super::plugins::program()).await?;
    for report in found.files {
        match report.verdict {
            Verdict::Loads(manifest) => names.extend(manifest.tasks.into_iter().map(|task| task.name)),
            Verdict::Skipped(_) => {}
            Verdict::Refused(reason) => {
                return Err(CliError::Usage(format!(
                    "{} cannot be loaded, so it is not known which names of tasks it uses: {reason}",
                    report.file
                )));
            }
        }
    }
    Ok(names)
}

/// Reads graphile-worker's name of a clean-up, or ours.
pub(super) fn parse_cleanup(text: &str) -> Result<CleanupTask, String> {
    match text.to_ascii_lowercase().replace('_', "-").as_str() {
        "delete-permafailed-jobs" | "failed-jobs" => Ok(CleanupTask::DeletePermafailedJobs),
        "gc-task-identifiers" | "task-names" => Ok(CleanupTask::GcTaskIdentifiers),
        "gc-job-queues" | "queues" => Ok(CleanupTask::GcJobQueues),
        _ => Err("it must be DELETE_PERMAFAILED_JOBS (or failed-jobs), GC_TASK_IDENTIFIERS (or task-names) or \
                  GC_JOB_QUEUES (or queues)"
            .to_owned()),
    }
}
