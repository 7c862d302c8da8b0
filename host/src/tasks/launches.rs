//! From a verified plugin file to a build in service: launches run beside the reloader's loop, and a build that claims what
//! another one has waits for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task;

use super::{TasksFolder, conflicts};
use crate::{
    events::{Event, FileRejection},
    parts::message_of,
    plugin::{Generation, Image, LaunchError, PluginSettings},
};

/// How a launch ended.
#[derive(Debug)]
pub(super) struct Launched {
    image: Arc<Image>,
    settings: PluginSettings,
    took: Duration,
    result: Result<Arc<Generation>, LaunchError>,
}

impl TasksFolder {
    /// Reads the allow-list again, and says whether it has changed, and once what is wrong with it.
    pub(super) fn look_whom_to_trust(&mut self) -> bool {
        let changed = self.trust.refresh();
        let Some((path, problem, lax)) = self.trust.list() else { return false };
        let (file, lax) = (path.display().to_string(), lax.map(str::to_owned));
        match problem.filter(|_| changed) {
            Some(problem) => {
                let reason =
                    format!("{problem} (until this list can be used, nothing new is loaded, and what serves goes on)");
                self.services.events.emit(Event::FileRejected(FileRejection {
                    file,
                    reason,
                    serving: None,
                    retry_in: None,
                }));
            }
            None => self.warn(&file, lax),
        }
        changed
    }

    pub(super) fn launch(&mut self, name: &str, image: Arc<Image>) {
        if let Some(reason) = conflicts::of_name(&self.files, name, &image.plugin) {
            return self.refuse(name, reason, true);
        }
        self.begin_launch(name, image, false);
    }

    /// Launches a build that was launched before, whose tasks and name are its own already.
    pub(super) fn launch_again(&mut self, name: &str, image: Arc<Image>) {
        self.begin_launch(name, image, true);
    }

    fn begin_launch(&mut self, name: &str, image: Arc<Image>, again: bool) {
        let settings = self.plugins.get(&image.plugin).clone();
        let (services, slots) = (self.services.clone(), Arc::clone(&self.launch_slots));
        let handle = self.launches.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let (began, launched) = (Instant::now(), Arc::clone(&image));
            let result = if again {
                Generation::launch_again(launched, &settings, &services).await
            } else {
                Generation::launch(launched, &settings, &services).await
            };
            Launched { image, settings, took: began.elapsed(), result }
        });
        self.launching.insert(handle.id(), name.to_owned());
    }

    pub(super) fn take_launched(&mut self, launched: Result<(task::Id, Launched), task::JoinError>) {
        let id = launched.as_ref().map_or_else(task::JoinError::id, |(id, _)| *id);
        let file = self.launching.remove(&id).expect("each launch is for a file");
        match launched {
            Ok((_, launched)) if launched.settings != *self.plugins.get(&launched.image.plugin) => {
                self.launch_with_new_settings(&file, launched);
            }
            Ok((_, Launched { result: Ok(generation), took, .. })) => self.held.push((file, generation, took)),
            Ok((_, Launched { result: Err(error), image, .. })) if self.is_wanted(&file, image.build) => {
                self.launch_failed(&file, image, &error);
            }
            // A file that makes the host panic is refused as others are, until it changes.
            Err(error) if error.is_panic() => {
                let message = message_of(&*error.into_panic());
                self.refuse(&file, format!("cannot be loaded: internal error of this host: {message}"), false);
            }
            // The build was replaced or removed meanwhile.
            Ok(_) | Err(_) => {}
        }
        self.admit();
        self.publish();
    }

    /// The settings have changed while a build was launched.
    fn launch_with_new_settings(&mut self, file: &str, Launched { image, result, .. }: Launched) {
        self.outgoing.extend(result);
        if self.is_wanted(file, image.build) && !self.is_launching(file) {
            self.launch_again(file, image);
        }
    }

    /// Whether a build of a file is being launched.
    pub(super) fn is_launching(&self, file: &str) -> bool {
        self.launching.values().any(|launching| launching == file)
    }

    /// Takes launched builds into service, in the order of their files' names. One that claims another's task waits while
    /// launches go on, since the other may be about to be replaced by a build without it, and is refused after that.
    fn admit(&mut self) {
        self.held.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let (wanted, outdated): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(file, one, _)| self.is_wanted(file, one.build()));
        self.held = wanted;
        self.outgoing.extend(outdated.into_iter().map(|(_, generation, _)| generation));
        while let Some(next) = self.held.iter().position(|(file, generation, _)| self.fits(file, generation)) {
            let (file, generation, took) = self.held.remove(next);
            self.serve(&file, generation, took);
        }
        if self.launches.is_empty() {
            for (file, generation, _) in std::mem::take(&mut self.held) {
                let reason = conflicts::of_tasks(&self.files, &file, generation.tasks()).unwrap_or_default();
                self.outgoing.push(generation);
                self.refuse(&file, reason, true);
            }
        }
    }

    /// Whether nothing speaks against a build: neither a task that another file has, nor one that a file before it in the
    /// order of names, which is still being launched, may turn out to claim.
    fn fits(&self, file: &str, generation: &Generation) -> bool {
        let has = |name: &String| {
            let serving = self.files.get(file).and_then(|known| known.serving.as_ref());
            serving.is_some_and(|serving| serving.generation.tasks().iter().any(|task| task.name == *name))
        };
        let claims_more = || generation.tasks().iter().any(|task| !has(&task.name));
        let first = !self.launching.values().any(|other| other.as_str() < file);
        conflicts::of_tasks(&self.files, file, generation.tasks()).is_none() && (first || !claims_more())
    }
}
