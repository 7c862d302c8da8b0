//! The trial of a new build.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::plugin::{BuildId, Generation, Image};

/// How long a build is on trial. Until then, the build before is kept in memory.
const TRIAL: Duration = Duration::from_secs(10 * 60);

/// What is known of the build before the one that serves.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) before: Arc<Image>,
    pub(super) ends: Instant,
}

impl Trial {
    /// Of a build that replaces this one. None if there is nothing good to go back to.
    pub(super) fn after(replaced: &Generation) -> Option<Self> {
        let before = Arc::clone(replaced.image().filter(|_| replaced.crashes() == 0)?);
        Some(Self { before, ends: Instant::now() + TRIAL })
    }

    /// The build to go back to.
    pub(super) fn before(&self) -> BuildId {
        self.before.build
    }

    pub(super) fn ends_in(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }
}
