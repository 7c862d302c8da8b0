//! The state of a host, for others to read while it runs.

use std::{sync::Arc, time::Duration};

use super::control::Control;
use crate::{
    config::EffectiveSetting,
    cron::CronSnapshot,
    parts::Stuck,
    queue::ClockOffset,
    tasks::{FolderSnapshot, TaskMapSnapshot},
    work::{LivenessSnapshot, PoolSnapshot},
};

/// Reads the state of a host. Cheap to clone. Each snapshot is made when it is asked for, costs the host nothing otherwise, and asks
/// the database nothing. `None`: the host does not know it yet, does not have it, or has ended.
///
/// ```no_run
/// use taskbay::{Options, TaskList, host::HostState};
///
/// # async fn example(tasks: TaskList) -> Result<(), Box<dyn std::error::Error>> {
/// let runner = taskbay::run(Options::new().folder("tasks").tasks(tasks)).await?;
/// let host = runner.host();
/// assert_eq!(host.state(), HostState::Working);
/// if let Some(pool) = host.pool() {
///     println!("{} of {} slots run jobs, {} jobs wait", pool.running, pool.slots, pool.waiting);
/// }
/// if let Some(since) = host.database().and_then(|database| database.unreachable_for) {
///     println!("the database has been away for {} s", since.as_secs());
/// }
/// for file in host.folder().await.iter().flat_map(|folder| &folder.files) {
///     if let Some(refused) = &file.refused {
///         println!("{} is refused: {}", file.file, refused.reason);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HostHandle {
    control: Control,
}

/// How far a host has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Loads tasks, or waits for the database.
    Starting,
    Working,
    /// Claims no more jobs, and waits for those that run.
    Stopping,
    Ended,
}

/// The database of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSnapshot {
    /// The database and its server or servers, without the password.
    pub name: String,
    pub schema: String,
    /// The revision of the schema at the start; `None` while the host waits for the database.
    pub revision: Option<i32>,
    /// For how long it cannot be reached, as far as the host has noticed.
    pub unreachable_for: Option<Duration>,
    /// Measured every second, with `liveness` on.
    pub clock_offset: Option<ClockOffset>,
}

impl Control {
    /// Reads the state of the host that is controlled, before its start, too.
    pub fn host(&self) -> HostHandle {
        HostHandle { control: self.clone() }
    }

    /// The settings of the host and their origins, for [`HostHandle::settings`].
    pub(crate) fn show_settings(&self, settings: Vec<EffectiveSetting>) {
        self.facts.know_settings(settings);
    }
}

impl HostHandle {
    pub fn state(&self) -> HostState {
        let Control { stop, ready, facts, .. } = &self.control;
        if facts.ended.is_cancelled() {
            HostState::Ended
        } else if stop.graceful.is_cancelled() || self.pool().is_some_and(|pool| pool.stopping) {
            HostState::Stopping
        } else if ready.is_cancelled() {
            HostState::Working
        } else {
            HostState::Starting
        }
    }

    /// The slots, and how many jobs there are.
    pub fn pool(&self) -> Option<PoolSnapshot> {
        Some(self.control.facts.pool()?.status())
    }

    /// The tasks that jobs run on now, with their builds: of the folder and of the program itself.
    pub fn tasks(&self) -> Option<TaskMapSnapshot> {
        Some(self.control.facts.pool()?.task_map())
    }

    /// Whether other hosts see that this one is alive, and its last takeover.
    pub fn liveness(&self) -> Option<LivenessSnapshot> {
        Some(self.control.facts.pool()?.liveness())
    }

    /// The database, as this host has found it.
    pub fn database(&self) -> Option<DatabaseSnapshot> {
        let facts = &self.control.facts;
        let database = facts.database()?;
        Some(DatabaseSnapshot {
            name: database.name().to_owned(),
            schema: database.schema().to_owned(),
            revision: facts.revision(),
            unreachable_for: database.health().unreachable_since().map(|since| since.elapsed()),
            clock_offset: database.health().clock_offset(),
        })
    }

    /// The schedules with their next fires. Those that are functions of the program are called for that.
    pub fn schedules(&self) -> Option<CronSnapshot> {
        Some(self.control.facts.schedules()?.snapshot())
    }

    /// The files of the tasks folder, once they are loaded. The loop that follows the folder answers, between two of its steps.
    pub async fn folder(&self) -> Option<FolderSnapshot> {
        if self.control.facts.has_folder() { self.control.folder.snapshot().await } else { None }
    }

    /// The settings in force and their origins. Those of `[tasks]` and `[plugins]` can change while the host runs.
    pub fn settings(&self) -> Arc<Vec<EffectiveSetting>> {
        self.control.facts.settings()
    }

    /// Has each part of the host show once a second that it moves, for [`HostHandle::stuck`]. Call it before the host starts.
    pub fn watch(&self) {
        self.control.parts.watch();
    }

    /// The parts of the host that have not moved for this long. A part that waits for the database or for a file system moves. Empty
    /// without [`HostHandle::watch`].
    pub fn stuck(&self, limit: Duration) -> Vec<Stuck> {
        self.control.parts.stuck(limit)
    }
}
