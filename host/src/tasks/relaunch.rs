//! A build that did not start for a passing reason, such as a database that was away, is launched again after a growing wait.
//! What served before serves on meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{TasksFolder, known_file::KnownFile, sections};
use crate::{
    events::{Event, FailedRetry, FileRejection},
    plugin::{BuildId, Image, LaunchError},
};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Each launch that fails is told at the level debug, and one of them this often to everybody.
const REMIND_EVERY: Duration = Duration::from_secs(5 * 60);

/// A build that is to be launched again.
#[derive(Debug)]
pub(super) struct Relaunch {
    /// Kept, because the file may hold something else by then: a build that was rolled back to is in no file.
    image: Arc<Image>,
    /// When it first failed.
    began: Instant,
    wait: Duration,
    /// None while it is being launched, or if it waits for other settings.
    next: Option<Instant>,
    reminded: Instant,
}

impl Relaunch {
    fn first(image: Arc<Image>) -> Self {
        let now = Instant::now();
        Self { image, began: now, wait: FIRST_WAIT, next: Some(now + FIRST_WAIT), reminded: now }
    }

    fn once_more(self) -> Self {
        let wait = (self.wait * 2).min(LONGEST_WAIT);
        Self { wait, next: Some(Instant::now() + wait), ..self }
    }

    /// The build.
    pub(super) fn build(&self) -> BuildId {
        self.image.build
    }

    /// When the next launch begins; none while one is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Has the next launch begin now, and the waits begin anew.
    fn hurry(&mut self) {
        (self.wait, self.next) = (FIRST_WAIT, Some(Instant::now()));
    }
}

impl TasksFolder {
    /// When the next build is to be launched again.
    pub(super) fn next_relaunch(&self) -> Option<Instant> {
        self.files.values().filter_map(|known| known.relaunch.as_ref()?.next).min()
    }

    /// The plugins that have never started.
    pub fn not_started(&self) -> Vec<String> {
        let waiting = |known: &KnownFile| known.serving.is_none() && known.relaunch.is_some();
        let waiting = self.files.iter().filter(|(_, known)| waiting(known));
        waiting.map(|(file, known)| sections::plugin_of(file, known.kind)).collect()
    }

    /// Gives a file another chance that was refused or has crashed too often. The refusal is told again if it lasts.
    pub(super) fn give_another_chance(&mut self, file: &str) {
        let launching = self.is_launching(file);
        let Some(known) = self.files.get_mut(file) else { return };
        let refused = known.refused.take().is_some();
        match &mut known.relaunch {
            Some(relaunch) if !launching => relaunch.hurry(),
            Some(_) => {}
            None => known.retry |= refused || known.is_quarantined(),
        }
    }

    /// Launches the builds again whose time has come.
    pub(super) fn launch_what_is_due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (name, known) in &mut self.files {
            let is_due = |relaunch: &&mut Relaunch| relaunch.next.is_some_and(|next| next <= now);
            let Some(relaunch) = known.relaunch.as_mut().filter(is_due) else { continue };
            if self.trust.is_delisted(name, relaunch.build()) {
                // The file is read again, and refused for that reason.
                (known.relaunch, known.retry) = (None, true);
            } else {
                relaunch.next = None;
                due.push((name.clone(), Arc::clone(&relaunch.image)));
            }
        }
        for (name, image) in due {
            self.launch_again(&name, image);
        }
    }

    /// Says that a build did not start, and plans another launch if the reason may pass.
    pub(super) fn launch_failed(&mut self, file: &str, image: Arc<Image>, error: &LaunchError) {
        let reason = sections::explain(&self.plugins, &image.plugin, error);
        if error.is_passing() {
            self.launch_later(file, image, reason);
            return;
        }
        self.refuse(file, reason, false);
        if let Some(known) = self.files.get_mut(file) {
            // What serves could not be started anew with other settings, which is to be seen until it can.
            let serves = known.serving.as_ref().is_some_and(|serving| serving.generation.build() == image.build);
            known.relaunch = serves.then(|| Relaunch { next: None, ..Relaunch::first(image) });
        }
    }

    fn launch_later(&mut self, file: &str, image: Arc<Image>, reason: String) {
        let Some(known) = self.files.get_mut(file) else { return };
        let before = known.relaunch.take().filter(|before| before.build() == image.build);
        // A refusal that was forgotten, as when somebody asks for another try, is told again.
        let repeated = before.is_some() && known.refused.is_some();
        let mut relaunch = before.map_or_else(|| Relaunch::first(image), Relaunch::once_more);
        let (retry_in, since) = (relaunch.wait, relaunch.began.elapsed());
        let reminder = relaunch.reminded.elapsed() >= REMIND_EVERY;
        if reminder {
            relaunch.reminded = Instant::now();
        }
        known.refuse(&reason, false);
        known.relaunch = Some(relaunch);
        let serving = known.serving.as_ref().map(|serving| serving.generation.build());
        let file = file.to_owned();
        self.services.events.emit(if repeated {
            Event::FileStillRejected(FailedRetry { file, reason, retry_in, since, reminder })
        } else {
            Event::FileRejected(FileRejection { file, reason, serving, retry_in: Some(retry_in) })
        });
    }
}
