//! From an image to a build in service: launches run beside the reloader's loop, a build with a task of another file waits for
//! them, and one that did not start for a passing reason is launched again.

use std::{mem, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt;
use tokio::task::JoinError;

use super::{
    TasksFolder, conflicts,
    file_state::FileState,
    launch::{Again, Launch, LaunchReason, Refusal, Relaunch, Report, Retry},
    launched::{Held, Launched},
    sections,
};
use crate::{
    events::{Event, FailedRetry, FileRejection},
    parts::message_of,
    plugin::{Generation, Image},
};

impl TasksFolder {
    /// Launches what a file holds.
    pub(super) fn launch(&mut self, file: &str, image: Arc<Image>) {
        if let Some(reason) = conflicts::of_name(&self.files, file, &image.plugin) {
            return self.refuse(file, Refusal { reason, build: Some(image.build), again: Again::WhenFree });
        }
        let id = self.spawn_launch(file, Arc::clone(&image), false);
        if let Some(known) = self.files.get_mut(file) {
            known.state.launch_build(id, image, LaunchReason::Contents, None);
        }
    }

    /// Launches a build that was launched before, whose name and tasks are its own already.
    pub(super) fn launch_again(&mut self, file: &str, image: Arc<Image>, reason: LaunchReason, retry: Option<Retry>) {
        let id = self.spawn_launch(file, Arc::clone(&image), true);
        if let Some(known) = self.files.get_mut(file) {
            known.state.launch_build(id, image, reason, retry);
        }
    }

    /// Begins a launch, and returns its number.
    fn spawn_launch(&mut self, file: &str, image: Arc<Image>, again: bool) -> u64 {
        self.last_launch += 1;
        let (file, id) = (file.to_owned(), self.last_launch);
        let settings = self.plugins.get(&image.plugin).clone();
        let (services, slots) = (self.services.clone(), Arc::clone(&self.launch_slots));
        self.launches.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let began = Instant::now();
            let launch = async {
                if again {
                    Generation::launch_again(image, &settings, &services).await
                } else {
                    Generation::launch(image, &settings, &services).await
                }
            };
            let result = AssertUnwindSafe(launch).catch_unwind().await.map_err(|panic| message_of(&*panic));
            Launched { file, id, settings, took: began.elapsed(), result }
        });
        id
    }

    pub(super) fn take_launched(&mut self, ended: Result<Launched, JoinError>) {
        // The others were aborted.
        if let Ok(launched) = ended {
            self.sort_in(launched);
        }
        self.admit();
        self.publish();
    }

    fn sort_in(&mut self, Launched { file, id, settings, took, result }: Launched) {
        let launch = self.launch_of(&file, id).cloned();
        match (result, launch) {
            (Ok(Ok(generation)), _) => self.held.push(Held { file, id, generation, settings, took }),
            (_, None) => {}
            (_, Some(Launch { image, reason, retry, .. })) if settings != *self.plugins.get(&image.plugin) => {
                self.launch_again(&file, image, reason, retry);
            }
            (Ok(Err(error)), Some(launch)) => {
                let reason = sections::explain(&self.plugins, &launch.image.plugin, &error);
                self.launch_failed(&file, launch, reason, error.is_passing());
            }
            // A file that makes the host panic is refused as others are, until it changes.
            (Err(message), Some(launch)) => {
                let reason = format!("cannot be loaded: internal error of this host: {message}");
                self.launch_failed(&file, launch, reason, false);
            }
        }
    }

    /// The launch of this number, unless it was superseded.
    fn launch_of(&self, file: &str, id: u64) -> Option<&Launch> {
        self.files.get(file)?.state.launch().filter(|launch| launch.id == id)
    }

    fn launch_failed(&mut self, file: &str, launch: Launch, reason: String, passing: bool) {
        let Some(known) = self.files.get_mut(file) else { return };
        let launched_for = launch.reason;
        let (refusal, report) = launch.failed(&reason, passing, Instant::now());
        known.state = FileState::Refused(refusal);
        if launched_for == LaunchReason::RollBack && !passing {
            known.end_trial();
        }
        let (name, serving) = (file.to_owned(), known.serves());
        match report {
            Report::Nothing => {}
            Report::Rejected { retry_in } => {
                let rejection = FileRejection { file: name, reason, serving, retry_in };
                self.services.events.emit(Event::FileRejected(rejection));
            }
            Report::StillRejected { retry_in, since, reminder } => {
                let retry = FailedRetry { file: name, reason, retry_in, since, reminder };
                self.services.events.emit(Event::FileStillRejected(retry));
            }
        }
        if launched_for == LaunchReason::Contents {
            self.restart_if_outdated(file);
        }
    }

    /// Starts the build anew that serves, if its settings have changed. What the file holds goes first, if that is launched.
    pub(super) fn restart_if_outdated(&mut self, file: &str) {
        let Some(known) = self.files.get(file) else { return };
        let outdated = known.serving.as_ref().filter(|serving| serving.is_outdated(&self.plugins));
        let image = outdated.and_then(|serving| serving.generation.image().cloned());
        if let Some(image) = image
            && known.state.launch().is_none()
            && !known.state.is_gone()
        {
            self.launch_again(file, image, LaunchReason::Restart, None);
        }
    }

    /// When the next build is to be launched again.
    pub(super) fn next_relaunch(&self) -> Option<Instant> {
        self.files.values().filter_map(|known| Some(known.state.relaunch()?.next)).min()
    }

    /// Launches the builds again whose time has come.
    pub(super) fn launch_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due = |relaunch: &Relaunch| relaunch.next <= now;
        let due: Vec<String> = self
            .files
            .iter()
            .filter(|(_, known)| known.state.relaunch().is_some_and(is_due))
            .map(|(file, _)| file.clone())
            .collect();
        for file in due {
            self.relaunch(&file, false);
        }
    }

    /// Launches the build again that a file waits for, and with `hurry` has the waits begin anew. One that is not trusted any
    /// more is read again, and refused for that.
    fn relaunch(&mut self, file: &str, hurry: bool) {
        let Some(known) = self.files.get_mut(file) else { return };
        let FileState::Refused(refusal) = &mut known.state else { return };
        let Again::At(relaunch) = &refusal.again else { return };
        if self.trust.is_delisted(file, relaunch.image.build) {
            refusal.again = Again::Now;
            return;
        }
        let Relaunch { image, reason, retry, .. } = (**relaunch).clone();
        self.launch_again(file, image, reason, Some(if hurry { retry.hurried() } else { retry }));
    }

    /// Gives every file another chance that was refused or whose build is quarantined, since somebody asked for that. A launch
    /// that is under way is such a chance, so what is told of one request is told once.
    pub(super) fn give_another_chance(&mut self) {
        for file in self.files.keys().cloned().collect::<Vec<_>>() {
            self.relaunch(&file, true);
            let Some(known) = self.files.get_mut(&file) else { continue };
            let quarantined = known.in_service(&self.plugins).is_some_and(|serving| serving.quarantined);
            if known.state.another_chance(quarantined) {
                self.asked.insert(file);
            }
        }
    }

    /// The plugins that have never started.
    pub fn not_started(&self) -> Vec<String> {
        let waiting = self.files.iter().filter(|(_, known)| known.serving.is_none() && known.state.is_retried());
        waiting.map(|(file, known)| sections::plugin_of(file, known.kind)).collect()
    }

    /// Takes started builds into service, in the order of their files' names. One with another file's task waits while builds
    /// are launched or files read, since the other may be about to be replaced by a build without it, and is refused after that.
    pub(super) fn admit(&mut self) {
        self.held.sort_by(|one, other| one.file.cmp(&other.file));
        for held in mem::take(&mut self.held) {
            match self.launch_of(&held.file, held.id).cloned() {
                Some(launch) if held.settings == *self.plugins.get(&launch.image.plugin) => self.held.push(held),
                superseded_or_outdated => {
                    self.outgoing.push(held.generation);
                    if let Some(Launch { image, reason, retry, .. }) = superseded_or_outdated {
                        self.launch_again(&held.file, image, reason, retry);
                    }
                }
            }
        }
        while let Some(next) = self.held.iter().position(|held| self.fits(held)) {
            let Held { file, generation, settings, took, .. } = self.held.remove(next);
            self.serve(&file, generation, settings, took);
        }
        if self.scans.is_running() || self.under_way().next().is_some() {
            return;
        }
        for Held { file, generation, .. } in mem::take(&mut self.held) {
            let reason = conflicts::of_tasks(&self.files, &file, generation.tasks()).unwrap_or_default();
            let refusal = Refusal { reason, build: Some(generation.build()), again: Again::WhenFree };
            self.outgoing.push(generation);
            if let Some(known) = self.files.get_mut(&file) {
                if known.state.launch().is_some_and(|launch| launch.reason == LaunchReason::RollBack) {
                    known.end_trial();
                }
                known.state.end_launch();
            }
            self.refuse(&file, refusal);
        }
    }

    /// The files whose builds have not started yet, in the order of their names.
    fn under_way(&self) -> impl Iterator<Item = &str> {
        let launching = self.files.iter().filter_map(|(file, known)| Some((file, known.state.launch()?.id)));
        let has_started = |id| self.held.iter().any(|held| held.id == id);
        launching.filter(move |(_, id)| !has_started(*id)).map(|(file, _)| file.as_str())
    }

    /// Whether nothing speaks against a build: neither a task that another file has, nor one that a file before it in the
    /// order of names, which is still being launched, may turn out to claim.
    fn fits(&self, held: &Held) -> bool {
        let tasks = held.generation.tasks();
        let own = self.files.get(&held.file).map_or(&[][..], |known| known.tasks());
        let claims_more = || tasks.iter().any(|task| !own.iter().any(|own| own.name == task.name));
        let first = self.under_way().next().is_none_or(|other| other >= held.file.as_str());
        conflicts::of_tasks(&self.files, &held.file, tasks).is_none() && (first || !claims_more())
    }
}
