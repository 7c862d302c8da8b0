//! How each event is said: one line in the log.

mod wording;

use tracing::{debug, error, info, trace, warn};

use self::wording::{began, in_seconds, listed, milliseconds, rounded, serves_on};
use super::{Event, FailedRetry, FileRejection, FolderTrouble, PluginBuild, RefusedTick, refusals::in_brackets};
use crate::queue::{Released, Unlocked};

/// One line per event. `event` is the name that log pipelines and the tests go by.
pub(super) fn log(event: &Event) {
    match event {
        Event::FolderReady { folder, plugins, executables, tasks } => {
            info!(event = "folder_ready", folder = %folder.display(), plugins, executables, tasks, "watching the tasks folder");
        }
        Event::NoTasks { folder } => {
            warn!(event = "no_tasks", folder = %folder.display(), "there is no task yet, so no job is worked: put a compiled plugin into {}", folder.display());
        }
        Event::FolderMissing(FolderTrouble { folder, reason, serving }) => {
            warn!(event = "folder_missing", folder = %folder.display(), serving, "{reason}{}", serves_on(*serving));
        }
        Event::FolderUnusable(FolderTrouble { folder, reason, serving }) => {
            warn!(event = "folder_unusable", folder = %folder.display(), serving, "{reason}{}", serves_on(*serving));
        }
        Event::FolderBack { folder } => {
            info!(event = "folder_back", folder = %folder.display(), "the tasks folder can be used again");
        }
        Event::WatchFailed { folder, reason } => {
            warn!(event = "watch_failed", folder = %folder.display(), reason, "the tasks folder cannot be watched and is listed every second instead: {reason}");
        }
        Event::LaxPermissions { what, reason } => {
            warn!(event = "lax_permissions", what, reason, "{what} is loaded although it is not safe: {reason}");
        }
        Event::FileRejected(FileRejection { file, reason, serving, retry_in }) => {
            let build = serving.map(|build| build.to_string());
            let goes_on = build.as_ref().map_or_else(String::new, |build| format!(" (build {build} keeps serving)"));
            let wait = retry_in.map(|wait| rounded(wait).to_string());
            let retry = wait.as_ref().map_or_else(String::new, |wait| format!("; next try in {wait}"));
            error!(event = "file_rejected", file, serving = build, retry_in = wait, "{file}: {reason}{goes_on}{retry}");
        }
        Event::FileStillRejected(FailedRetry { file, reason, retry_in, since, reminder: true }) => {
            warn!(event = "file_still_rejected", file, retry_in = ?retry_in, "{file}: {reason}; retrying for {}, next try in {}", rounded(*since), rounded(*retry_in));
        }
        Event::FileStillRejected(FailedRetry { file, reason, retry_in, .. }) => {
            debug!(event = "file_still_rejected", file, retry_in = ?retry_in, "{file}: {reason}; next try in {}", rounded(*retry_in));
        }
        Event::FileRestored(file, serving) => {
            info!(event = "file_restored", file, %serving, "{file} is back to build {serving}, which is still serving");
        }
        Event::UnknownPluginSection(section) => {
            warn!(event = "unknown_plugin_section", plugin = section.plugin, place = section.place, "{section}");
        }
        Event::SettingWithoutEffect(sentence) => warn!(event = "setting_without_effect", "{sentence}"),
        Event::FileSkipped { file, reason, unexpected: true } => {
            info!(event = "file_skipped", file, "{file} is not loaded: {reason}");
        }
        Event::FileSkipped { file, reason, unexpected: false } => {
            debug!(event = "file_skipped", file, "{file} is not loaded: {reason}");
        }
        Event::TaskShadowed { file, task, by } => {
            warn!(
                event = "task_shadowed",
                file, task, by, "{file} gets no jobs of {task}, because {by} goes first; rename one of them"
            );
        }
        Event::PluginLoaded { build: PluginBuild { plugin, build }, file, tasks, replaced: Some(old), took }
            if old == build =>
        {
            info!(event = "plugin_loaded", plugin, %build, file, replaced = %old, tasks = tasks.join(","), took_ms = milliseconds(*took), "restarted plugin {plugin}, build {build}");
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
        Event::TasksHidden { build: PluginBuild { plugin, build }, file, tasks } => {
            let tasks = tasks.join(", ");
            warn!(event = "tasks_hidden", plugin, %build, file, tasks, "{file} has tasks that this program has compiled in, which are run instead: {tasks}");
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
        Event::RolledBack { build: PluginBuild { plugin, build }, file, to, crashes } => {
            error!(event = "plugin_rolled_back", plugin, %build, file, serving = %to, crashes, "plugin {plugin} is rolled back: build {build} crashed {crashes} times, which build {to} before it did not; {to} serves until {file} changes");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: true, line } => {
            warn!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: false, line } => {
            info!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::JobStarted { job, map } => {
            debug!(target: "taskbay::events::job", event = "job_started", job = job.id, task = &*job.task, worker = &*job.worker, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, map, "job started");
        }
        Event::JobDone { job, took } => {
            debug!(target: "taskbay::events::done", event = "job_done", job = job.id, task = &*job.task, worker = &*job.worker, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, took_ms = milliseconds(*took), "job done");
        }
        Event::JobFailed { job, message, retry, took } => {
            error!(
                event = "job_failed", job = job.id, task = &*job.task, worker = &*job.worker, plugin = &*job.plugin, build = %job.build, attempt = job.attempt,
                max_attempts = job.max_attempts, retry, took_ms = milliseconds(*took), "job failed{}: {message}", if *retry { "" } else { " for good" }
            );
        }
        Event::ResultsIgnored { job, results, message } => {
            warn!(
                event = "results_ignored", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, results, failures = message,
                "the task gave {results} results, but the payload is not an array of as many items: the job counts as done"
            );
        }
        Event::JobFailedForGood { job, .. } => {
            trace!(
                event = "job_failed_for_good",
                job = job.id,
                task = &*job.task,
                worker = &*job.worker,
                "no attempt is left"
            );
        }
        Event::JobCompleted { job, .. } => {
            trace!(
                event = "job_completed",
                job = job.id,
                task = &*job.task,
                worker = &*job.worker,
                "the job's end is stored"
            );
        }
        Event::PoolCreated(pool) => trace!(event = "pool_created", worker = &**pool, "a pool begins"),
        Event::ClaimStarted { worker, wanted } => {
            trace!(event = "claim_started", worker = &**worker, wanted, "asking for {wanted} jobs");
        }
        Event::ClaimEmpty(worker) => trace!(event = "claim_empty", worker = &**worker, "there are no jobs"),
        Event::ClaimFailed { worker, error } => {
            trace!(event = "claim_failed", worker = &**worker, "could not claim jobs: {error}");
        }
        Event::WorkerStopped(worker) => trace!(event = "worker_stopped", worker = &**worker, "claims no more"),
        Event::WorkerReleased(worker) => trace!(event = "worker_released", worker = &**worker, "runs no more jobs"),
        Event::StopCompleted { pool, forceful } => {
            trace!(event = "stop_completed", worker = &**pool, forceful, "the pool has stopped");
        }
        Event::PoolReleased(pool) => {
            trace!(event = "pool_released", worker = &**pool, "the pool holds nothing any more")
        }
        Event::ListenConnecting { attempts } => trace!(event = "listen_connecting", attempts, "connecting to listen"),
        Event::ListenFailed { attempts, error } => {
            trace!(event = "listen_failed", attempts, "could not listen: {error}")
        }
        Event::Notified { channel, payload } => trace!(event = "notified", channel, payload, "heard of something"),
        Event::ListenReleased => trace!(event = "listen_released", "nobody listens any more"),
        Event::SignalReceived { signal, forceful } => {
            debug!(event = "signal_received", signal, forceful, "received signal {signal}");
        }
        Event::JobOutput { id, task, build: PluginBuild { plugin, build }, error: true, line } => {
            error!(event = "job_output", job = id, task = &**task, plugin, %build, "{line}");
        }
        Event::JobOutput { id, task, build: PluginBuild { plugin, build }, error: false, line } => {
            info!(event = "job_output", job = id, task = &**task, plugin, %build, "{line}");
        }
        Event::JobReturned { id, task, reason } => {
            debug!(target: "taskbay::events::job", event = "job_returned", job = id, task = &**task, "job given back: {reason}");
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
        Event::DatabaseTrouble { what, error, reminder: Some(lasted), .. } => {
            let since = began(*lasted);
            warn!(
                event = "database_trouble_goes_on",
                since,
                lasted_s = lasted.as_secs(),
                "still cannot {what}, since {since}, for {}: {error}",
                in_seconds(*lasted)
            );
        }
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
        Event::DatabaseBack { what, lasted } => {
            info!(
                event = "database_back",
                lasted_s = lasted.as_secs(),
                "could {what} again, after {}",
                in_seconds(*lasted)
            );
        }
        Event::VerdictOverruled { id, task } => {
            let task = task.as_deref();
            warn!(
                event = "verdict_overruled",
                job = id,
                task,
                "the result of job {id}{} is not stored, because this host does not hold the job any more: it was deleted, or \
                 its lock was released by an administrator or because this host was taken for dead",
                in_brackets(task)
            );
        }
        Event::Refused(refusal) => refusal.log(),
        Event::LivenessUnavailable => warn!(
            event = "liveness_unavailable",
            "locks do not stay with this connection, as behind a pooler in transaction mode: nobody can see whether this host \
             lives, and if it dies, its jobs wait for 4 hours. Use --no-liveness to say that this is meant, or connect without \
             the pooler"
        ),
        Event::TakenOver(Released { owners, jobs, queues, .. }) => {
            let owners = owners.join(", ");
            warn!(
                event = "taken_over",
                owners, jobs, queues, "released {jobs} jobs and {queues} queues of hosts that have died: {owners}"
            );
        }
        Event::GivenBack(Unlocked { jobs, queues }) => {
            info!(
                event = "given_back",
                jobs,
                queues,
                "freed {jobs} jobs and {queues} queues that were locked in this host's name although it did not have them: \
                 an answer of the server was lost, or another server took over"
            );
        }
        Event::LocksRenewed { jobs } => {
            debug!(event = "locks_renewed", jobs, "renewed the locks of {jobs} jobs that run long");
        }
        Event::ResetLockedStarted => {
            debug!(event = "reset_locked_started", "looking for locks of workers that are gone");
        }
        Event::ResetLockedSucceeded { unlocked: Unlocked { jobs: 0, queues: 0 }, .. } => {
            debug!(event = "reset_locked", jobs = 0, queues = 0, "no lock is older than 4 hours");
        }
        Event::ResetLockedSucceeded { unlocked: Unlocked { jobs, queues }, .. } => {
            warn!(
                event = "reset_locked",
                jobs, queues, "released {jobs} jobs and {queues} queues that were locked for more than 4 hours"
            );
        }
        Event::ResetLockedFailed { error, delay } => {
            warn!(event = "reset_locked_failed", "{error}; trying again in {} s", delay.as_secs());
        }
        Event::Outdated { number, breaking } => {
            error!(
                event = "outdated",
                number,
                breaking,
                "the database was just brought to revision {number}, where revision {breaking} is marked as breaking; this \
                 program does not know it, and stops: start a newer version"
            );
        }
        Event::CrontabMissing { file } => {
            info!(event = "crontab_missing", file = %file.display(), "there is no crontab at {}; it is read when it comes", file.display());
        }
        Event::CrontabLoaded { file, items } => {
            info!(event = "crontab_loaded", file = %file.display(), items, "read the crontab {}: {items} schedules", file.display());
        }
        Event::CrontabRefused { file, reason, in_force } => {
            let meanwhile = if *in_force == 0 {
                "none of it is in force".to_owned()
            } else {
                format!("the {in_force} schedules that it had stay in force")
            };
            error!(event = "crontab_refused", file = %file.display(), in_force, "the crontab {} cannot be used: {reason} ({meanwhile})", file.display());
        }
        Event::CrontabRemoved { file, items } => {
            info!(event = "crontab_removed", file = %file.display(), items, "the crontab {} is gone, and its {items} schedules with it", file.display());
        }
        Event::PluginScheduleRefused { plugin, task, reason } => {
            error!(
                event = "plugin_schedule_refused",
                plugin, task, "a schedule of the task {task} of plugin {plugin} cannot be used: {reason}"
            );
        }
        Event::ScheduleOverridden { identifier, kept, left_out } => {
            warn!(
                event = "schedule_overridden",
                identifier,
                kept,
                left_out,
                "the schedule {identifier:?} of {left_out} does not count: {kept} has one with this id"
            );
        }
        Event::SchedulesChanged { added, removed, items } => {
            info!(
                event = "schedules_changed",
                added = added.join(","),
                removed = removed.join(","),
                items,
                "schedules in force: {items}{}{}",
                listed(", added ", added),
                listed(", removed ", removed)
            );
        }
        Event::PartFailed(failure) => {
            error!(
                event = "host_failed",
                part = failure.part,
                location = failure.location,
                "stopping because of an internal error: {failure}; jobs that this host holds are given back"
            );
        }
        Event::CronStarting { start, items } => {
            debug!(event = "cron_starting", %start, items, "starting the schedules")
        }
        Event::CronStarted { start, items: 0 } => debug!(event = "cron_started", %start, items = 0, "no schedules yet"),
        Event::CronStarted { start, items } => {
            info!(event = "cron_started", %start, items, "schedules in force: {items}");
        }
        Event::CronBackfill { timestamp, items } => {
            info!(event = "cron_backfill", %timestamp, items = items.len(), "making up for {} schedules that were missed at {timestamp}", items.len());
        }
        Event::CronPrematureTimer { current, expected } => {
            debug!(event = "cron_premature_timer", %current, %expected, "the clock was set back: it is {current}, waiting for {expected}");
        }
        Event::CronOverdueTimer { current, expected } => {
            debug!(event = "cron_overdue_timer", %current, %expected, "it is {current} already, making up for the minutes from {expected} on");
        }
        Event::CronSchedule { timestamp, jobs } => {
            debug!(event = "cron_schedule", %timestamp, jobs = jobs.len(), "schedules that are due at {timestamp}: {}", jobs.len());
        }
        Event::CronScheduled { timestamp, jobs, added } => {
            debug!(event = "cron_scheduled", %timestamp, jobs = jobs.len(), added = added.join(","), "added the jobs of {timestamp}: {} of {}, the rest by other hosts", added.len(), jobs.len());
        }
        Event::CronItemFailed(RefusedTick { identifier, task, timestamp, reason }) => {
            error!(event = "cron_item_failed", identifier, task, %timestamp, "could not add the job of the schedule {identifier:?} for {timestamp}: {reason}");
        }
        Event::CronTicksGivenUp { from, until } => {
            warn!(event = "cron_ticks_given_up", %from, %until, "schedules that were due from {from} to {until} are given up but for those with `fill`: that is too long ago");
        }
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
