//! Where a host keeps what its handle shows: each stage adds its own when it starts.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::{config::EffectiveSetting, cron::CronHandle, migrate::Revision, queue::Database, work::Pool};

/// The sources of snapshots. They keep no part of the host alive.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Fires when the host has ended.
    pub(super) ended: CancellationToken,
    pool: OnceLock<(Weak<Pool>, Database)>,
    /// The folder is loaded, so that it answers.
    has_folder: AtomicBool,
    revision: OnceLock<i32>,
    schedules: OnceLock<CronHandle>,
    settings: ArcSwap<Vec<EffectiveSetting>>,
}

impl Facts {
    pub(super) fn know_pool(&self, pool: &Arc<Pool>, database: &Database) {
        let _ = self.pool.set((Arc::downgrade(pool), database.clone()));
    }

    pub(super) fn know_folder(&self) {
        self.has_folder.store(true, Ordering::Release);
    }

    pub(super) fn know_revision(&self, revision: &Revision) {
        let _ = self.revision.set(revision.number);
    }

    pub(super) fn know_schedules(&self, schedules: CronHandle) {
        let _ = self.schedules.set(schedules);
    }

    pub(super) fn know_settings(&self, settings: Vec<EffectiveSetting>) {
        self.settings.store(Arc::new(settings));
    }

    /// `None` before the start and after the end.
    pub(super) fn pool(&self) -> Option<Arc<Pool>> {
        let (pool, _) = self.pool.get().filter(|_| !self.ended.is_cancelled())?;
        pool.upgrade()
    }

    pub(super) fn database(&self) -> Option<&Database> {
        self.pool.get().filter(|_| !self.ended.is_cancelled()).map(|(_, database)| database)
    }

    pub(super) fn has_folder(&self) -> bool {
        self.has_folder.load(Ordering::Acquire) && !self.ended.is_cancelled()
    }

    /// As of the start.
    pub(super) fn revision(&self) -> Option<i32> {
        self.revision.get().copied()
    }

    pub(super) fn schedules(&self) -> Option<&CronHandle> {
        self.schedules.get().filter(|_| !self.ended.is_cancelled())
    }

    pub(super) fn settings(&self) -> Arc<Vec<EffectiveSetting>> {
        self.settings.load_full()
    }
}
