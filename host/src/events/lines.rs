//! How each event is said: one line in the log.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::{Event, PluginBuild};

/// One line per event. `event` is the name that log pipelines and the tests go by.
pub(super) fn log(event: &Event) {
    match event {
        Event::FolderReady { folder, plugins, tasks } => {
            info!(event = "folder_ready", folder = %folder.display(), plugins, tasks, "watching the tasks folder");
        }
        Event::FolderMissing { folder, reason } => {
            warn!(event = "folder_missing", folder = %folder.display(), reason, "the tasks folder is missing; what is loaded keeps serving");
        }
        Event::FolderBack { folder } => {
            info!(event = "folder_back", folder = %folder.display(), "the tasks folder is back");
        }
        Event::WatchFailed { folder, reason } => {
            warn!(event = "watch_failed", folder = %folder.display(), reason, "the tasks folder cannot be watched and is listed every second instead: {reason}");
        }
        Event::LaxPermissions { what, reason } => {
            warn!(event = "lax_permissions", what, reason, "{what} is loaded although it is not safe: {reason}");
        }
        Event::FileRejected { file, reason, serving: Some(build) } => {
            error!(event = "file_rejected", file, serving = %build, "{file}: {reason} (build {build} keeps serving)");
        }
        Event::FileRejected { file, reason, serving: None } => {
            error!(event = "file_rejected", file, "{file}: {reason}");
        }
        Event::PluginLoaded { build: PluginBuild { plugin, build }, file, tasks, replaced: Some(old), took } => {
            info!(event = "plugin_loaded", plugin, %build, file, replaced = %old, tasks = tasks.join(","), took_ms = milliseconds(*took), "replaced plugin {plugin}: build {old} by {build}");
        }
        Event::PluginLoaded { build: PluginBuild { plugin, build }, file, tasks, replaced: None, took } => {
            info!(event = "plugin_loaded", plugin, %build, file, tasks = tasks.join(","), took_ms = milliseconds(*took), "loaded plugin {plugin}, build {build}");
        }
        Event::PluginRemoved { build: PluginBuild { plugin, build }, file, tasks } => {
            info!(event = "plugin_removed", plugin, %build, file, tasks = tasks.join(","), "removed plugin {plugin}: its file is gone");
        }
        Event::TaskMapPublished { epoch, tasks, added, removed } => {
            debug!(
                event = "task_map_published",
                epoch,
                tasks,
                added = added.join(","),
                removed = removed.join(","),
                "task map {epoch} is in force"
            );
        }
        Event::Draining { build: PluginBuild { plugin, build }, in_flight } => {
            info!(event = "draining", plugin, %build, in_flight, "build {build} of {plugin} finishes its running jobs: {in_flight}");
        }
        Event::Retired { build: PluginBuild { plugin, build } } => {
            debug!(event = "retired", plugin, %build, "build {build} of {plugin} is gone");
        }
        Event::PluginCrashed { build: PluginBuild { plugin, build }, reason, in_flight, restart_in } => {
            error!(event = "plugin_crashed", plugin, %build, in_flight, restart_in = ?restart_in, "plugin {plugin} crashed: {reason}; starting it again in {restart_in:?}");
        }
        Event::PluginRestarted { build: PluginBuild { plugin, build } } => {
            info!(event = "plugin_restarted", plugin, %build, "plugin {plugin} serves again");
        }
        Event::PluginQuarantined { build: PluginBuild { plugin, build }, reason } => {
            error!(event = "plugin_quarantined", plugin, %build, "plugin {plugin} crashed too often and is quarantined ({reason}); its jobs wait until a new build replaces {build}");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: true, line } => {
            warn!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: false, line } => {
            info!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::JobStarted { job, map } => {
            debug!(event = "job_started", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, map, "job started");
        }
        Event::JobDone { job, took } => {
            debug!(event = "job_done", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, took_ms = milliseconds(*took), "job done");
        }
        Event::JobFailed { job, message, retry, took } => {
            error!(
                event = "job_failed", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt,
                max_attempts = job.max_attempts, retry, took_ms = milliseconds(*took), "job failed{}: {message}", if *retry { "" } else { " for good" }
            );
        }
        Event::JobReturned { id, task, reason } => {
            debug!(event = "job_returned", job = id, task = &**task, "job given back unstarted: {reason}");
        }
        Event::SchemaReady { number, warning: Some(warning), .. } => {
            warn!(event = "schema_ready", number, "{warning}");
        }
        Event::SchemaReady { number, installed: true, .. } => {
            info!(event = "schema_ready", number, "installed the schema at revision {number}");
        }
        Event::SchemaReady { number, .. } => {
            debug!(event = "schema_ready", number, "the schema is at revision {number}")
        }
        Event::WorkerReady { owner, concurrency } => {
            info!(event = "worker_ready", owner, concurrency, "ready for jobs");
        }
        Event::Listening => debug!(event = "listening", "listening for new jobs"),
        Event::NotificationsMissing => warn!(
            event = "notifications_missing",
            "notifications do not arrive, as behind a pooler in transaction mode; new jobs are found by polling alone. Use \
             --no-listen to say that this is meant, or connect without the pooler"
        ),
        Event::DatabaseTrouble { what, error, repeated: false, .. } => {
            warn!(event = "database_trouble", "could not {what}: {error}; trying until it goes through");
        }
        Event::DatabaseTrouble { what, error, retry_in, .. } => {
            debug!(
                event = "database_trouble",
                "could not {what}: {error}; trying again in {} ms",
                retry_in.as_millis()
            );
        }
        Event::DatabaseBack { what } => info!(event = "database_back", "could {what} again"),
        Event::Stopping { running, forceful: false } => {
            info!(event = "stopping", running, "stopping: claiming no more jobs, finishing {running}");
        }
        Event::Stopping { running, forceful: true } => {
            warn!(event = "stopping_now", running, "stopping now: cancelling {running} running jobs");
        }
        Event::VerdictsLost { jobs, owner } => {
            error!(
                event = "verdicts_lost",
                jobs,
                owner,
                "ending although the results of {jobs} jobs could not be stored: they stay locked by {owner} and will run again \
                 once that lock is released (graphile_worker.force_unlock_workers)"
            );
        }
        Event::Stopped => info!(event = "stopped", "stopped"),
    }
}

/// For log pipelines: a number with microseconds behind the point.
fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
