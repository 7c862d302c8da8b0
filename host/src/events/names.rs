//! What each event is called: as graphile-worker calls it, where it has such an event.

use super::Event;

impl Event {
    /// The event's name: graphile-worker's, such as `job:start`, or one in its manner, such as `plugin:load`.
    ///
    /// # For those who know graphile-worker's events
    ///
    /// This gives graphile-worker's name of whatever it announces as well. Its *worker* runs one job at a time, and
    /// claims for itself. Here a pool has one claimer, which claims for all free slots at once, so a pool **is** one worker:
    /// `worker:create`, `worker:stop` and `worker:release` come once per pool, `worker:getJob:start` once per claim, and the
    /// `worker` of each event is the pool's id, which is what `locked_by` says. The events of one job come in this order:
    /// `worker:getJob:start`, `job:start`, then `job:success` or `job:error` (and `job:failed` if it was the last attempt), then
    /// `job:complete`. All but the first two come when the database has stored the end of the job. `pool:fatalError` and
    /// `worker:fatalError` do not exist, because a lost database is tried again for ever.
    pub fn name(&self) -> &'static str {
        match self {
            // graphile-worker's.
            Self::PoolCreated(_) => "pool:create",
            Self::ListenConnecting { .. } => "pool:listen:connecting",
            Self::Listening => "pool:listen:success",
            Self::ListenFailed { .. } => "pool:listen:error",
            Self::Notified { .. } => "pool:listen:notification",
            Self::ListenReleased => "pool:listen:release",
            Self::NotificationsMissing => "pool:listen:missing",
            Self::Stopping { forceful: false, .. } => "pool:gracefulShutdown",
            Self::Stopping { forceful: true, .. } => "pool:forcefulShutdown",
            Self::StopCompleted { forceful: false, .. } => "pool:gracefulShutdown:complete",
            Self::StopCompleted { forceful: true, .. } => "pool:forcefulShutdown:complete",
            Self::VerdictsLost { .. } => "pool:forcefulShutdown:error",
            Self::PoolReleased(_) => "pool:release",
            Self::WorkerReady { .. } => "worker:create",
            Self::ClaimStarted { .. } => "worker:getJob:start",
            Self::ClaimEmpty(_) => "worker:getJob:empty",
            Self::ClaimFailed { .. } => "worker:getJob:error",
            Self::WorkerStopped(_) => "worker:stop",
            Self::WorkerReleased(_) => "worker:release",
            Self::JobStarted { .. } => "job:start",
            Self::JobDone { .. } => "job:success",
            Self::JobFailed { .. } => "job:error",
            Self::JobFailedForGood { .. } => "job:failed",
            Self::JobCompleted { .. } => "job:complete",
            Self::ResetLockedStarted => "resetLocked:started",
            Self::ResetLockedSucceeded { .. } => "resetLocked:success",
            Self::ResetLockedFailed { .. } => "resetLocked:failure",
            Self::SignalReceived { forceful: false, .. } => "gracefulShutdown",
            Self::SignalReceived { forceful: true, .. } => "forcefulShutdown",
            Self::Stopped => "stop",
            Self::CronStarting { .. } => "cron:starting",
            Self::CronStarted { .. } => "cron:started",
            Self::CronBackfill { .. } => "cron:backfill",
            Self::CronPrematureTimer { .. } => "cron:prematureTimer",
            Self::CronOverdueTimer { .. } => "cron:overdueTimer",
            Self::CronSchedule { .. } => "cron:schedule",
            Self::CronScheduled { .. } => "cron:scheduled",
            // Ours.
            Self::FolderReady { .. } => "folder:ready",
            Self::NoTasks { .. } => "folder:noTasks",
            Self::FolderMissing(_) => "folder:missing",
            Self::FolderUnusable(_) => "folder:unusable",
            Self::FolderBack { .. } => "folder:back",
            Self::WatchFailed { .. } => "folder:watchFailed",
            Self::LaxPermissions { .. } => "folder:laxPermissions",
            Self::FileRejected(_) => "folder:fileRejected",
            Self::FileStillRejected(_) => "folder:fileStillRejected",
            Self::FileRestored(..) => "folder:fileRestored",
            Self::UnknownPluginSection(_) => "folder:unknownPluginSection",
            Self::SettingWithoutEffect(_) => "folder:settingWithoutEffect",
            Self::FileSkipped { .. } => "folder:fileSkipped",
            Self::TaskShadowed { .. } => "folder:taskShadowed",
            Self::PluginLoaded { .. } => "plugin:load",
            Self::PluginRemoved { .. } => "plugin:remove",
            Self::TasksHidden { .. } => "plugin:tasksHidden",
            Self::Draining { .. } => "plugin:drain",
            Self::Retired { .. } => "plugin:retire",
            Self::PluginCrashed { .. } => "plugin:crash",
            Self::PluginRestarted { .. } => "plugin:restart",
            Self::PluginQuarantined { .. } => "plugin:quarantine",
            Self::RolledBack { .. } => "plugin:rollback",
            Self::PluginOutput { .. } => "plugin:output",
            Self::TaskMapPublished { .. } => "tasks:publish",
            Self::ResultsIgnored { .. } => "job:resultsIgnored",
            Self::JobOutput { .. } => "job:output",
            Self::JobReturned { .. } => "job:return",
            Self::VerdictOverruled { .. } => "job:overruled",
            Self::Refused(refusal) => refusal.name(),
            Self::LivenessUnavailable => "pool:livenessUnavailable",
            Self::TakenOver(_) => "pool:takeOver",
            Self::GivenBack(_) => "pool:giveBack",
            Self::LocksRenewed { .. } => "pool:renewLocks",
            Self::SchemaReady { .. } => "schema:ready",
            Self::Outdated { .. } => "schema:outdated",
            Self::PartFailed(_) => "host:partFailed",
            Self::CrontabMissing { .. } => "cron:crontabMissing",
            Self::CrontabLoaded { .. } => "cron:crontabLoaded",
            Self::CrontabRefused { .. } => "cron:crontabRefused",
            Self::CrontabRemoved { .. } => "cron:crontabRemoved",
            Self::PluginScheduleRefused { .. } => "cron:scheduleRefused",
            Self::ScheduleOverridden { .. } => "cron:scheduleOverridden",
            Self::SchedulesChanged { .. } => "cron:schedulesChanged",
            Self::CronItemFailed(_) => "cron:itemFailed",
            Self::CronTicksGivenUp { .. } => "cron:ticksGivenUp",
            Self::DatabaseTrouble { .. } => "database:trouble",
            Self::DatabaseBack { .. } => "database:back",
        }
    }
}
