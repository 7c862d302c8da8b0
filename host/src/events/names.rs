//! What each event is called: as graphile-worker calls it, where it has such an event.

use super::Event;

impl Event {
    /// The event's name: graphile-worker's, such as `job:start`, or one in its manner, such as `plugin:load`.
    pub fn name(&self) -> &'static str {
        match self {
            // graphile-worker's.
            Self::PoolCreated { .. } => "pool:create",
            Self::ListenConnecting { .. } => "pool:listen:connecting",
            Self::Listening => "pool:listen:success",
            Self::ListenFailed { .. } => "pool:listen:error",
            Self::Notified { .. } => "pool:listen:notification",
            Self::ListenReleased => "pool:listen:release",
            Self::Stopping { forceful: false, .. } => "pool:gracefulShutdown",
            Self::Stopping { forceful: true, .. } => "pool:forcefulShutdown",
            Self::StopCompleted { forceful: false, .. } => "pool:gracefulShutdown:complete",
            Self::StopCompleted { forceful: true, .. } => "pool:forcefulShutdown:complete",
            Self::VerdictsLost { .. } => "pool:forcefulShutdown:error",
            Self::PoolReleased { .. } => "pool:release",
            Self::WorkerReady { .. } => "worker:create",
            Self::ClaimStarted { .. } => "worker:getJob:start",
            Self::ClaimEmpty { .. } => "worker:getJob:empty",
            Self::ClaimFailed { .. } => "worker:getJob:error",
            Self::WorkerStopped { .. } => "worker:stop",
            Self::WorkerReleased { .. } => "worker:release",
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
            // Ours.
            Self::FolderReady { .. } => "folder:ready",
            Self::FolderMissing { .. } => "folder:missing",
            Self::FolderBack { .. } => "folder:back",
            Self::WatchFailed { .. } => "folder:watchFailed",
            Self::LaxPermissions { .. } => "folder:laxPermissions",
            Self::FileRejected { .. } => "folder:fileRejected",
            Self::PluginLoaded { .. } => "plugin:load",
            Self::PluginRemoved { .. } => "plugin:remove",
            Self::TasksHidden { .. } => "plugin:tasksHidden",
            Self::Draining { .. } => "plugin:drain",
            Self::Retired { .. } => "plugin:retire",
            Self::PluginCrashed { .. } => "plugin:crash",
            Self::PluginRestarted { .. } => "plugin:restart",
            Self::PluginQuarantined { .. } => "plugin:quarantine",
            Self::PluginOutput { .. } => "plugin:output",
            Self::TaskMapPublished { .. } => "tasks:publish",
            Self::ResultsIgnored { .. } => "job:resultsIgnored",
            Self::JobReturned { .. } => "job:return",
            Self::LocksRenewed { .. } => "pool:renewLocks",
            Self::SchemaReady { .. } => "schema:ready",
            Self::Outdated { .. } => "schema:outdated",
            Self::DatabaseTrouble { .. } => "database:trouble",
            Self::DatabaseBack { .. } => "database:back",
        }
    }
}
