//! The reloader: keeps the task map in step with the folder.
//!
//! One loop owns all that is known of the files. Scans and launches may take seconds, so they run beside the loop; the map is
//! published when they end. A file that fails at any step costs only itself, and what was serving serves on.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    TasksFolder,
    file_state::FileState,
    folder_error::FolderError,
    known_file::{KnownFile, Serving},
    launch::Refusal,
    listing::Kind,
    scanner::{Rescan, ScanEvent, ScanRequest},
    trial::Trial,
};
use crate::{
    events::{Event, FileRejection, PluginBuild},
    parts::Part,
    plugin::{Generation, PluginSettings},
};

/// A file that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub file: String,
    pub reason: String,
    /// It is tried again, since the reason may pass by itself.
    pub passing: bool,
}

impl TasksFolder {
    /// What it is a part of the host as.
    pub(crate) fn part(&self) -> Part {
        self.part.clone()
    }

    /// Lists the folder for the first time, and returns when every file in it serves or was refused.
    pub async fn load_all(mut self) -> Result<(Self, Vec<Rejection>), FolderError> {
        self.scan();
        loop {
            while self.scans.is_running() || !self.launches.is_empty() {
                tokio::select! {
                    event = self.scans.next() => drop(self.take_scan_event(event)),
                    Some(launched) = self.launches.join_next() => self.take_launched(launched),
                }
            }
            if let Some((_, error)) = &self.unusable
                && !self.listed
                && !self.may_start_without(error)
            {
                return Err(error.clone());
            }
            self.listed = true;
            let Some(next) = self.next_scan() else { break };
            tokio::time::sleep_until(next.into()).await;
            self.scan();
        }
        let rejections = self.announce_ready();
        Ok((self, rejections))
    }

    /// Whether a host may start although its folder cannot be used.
    pub(super) fn may_start_without(&self, error: &FolderError) -> bool {
        self.settings.tolerate_broken_start && matches!(error, FolderError::Missing(_))
    }

    /// Says what was loaded, and returns what was refused.
    fn announce_ready(&self) -> Vec<Rejection> {
        let tasks = self.map.load().identifiers().len();
        let count = |kind| self.files.values().filter(|file| file.serving.is_some() && file.kind == kind).count();
        let (plugins, executables) = (count(Kind::Plugin), count(Kind::Executable));
        self.services.events.emit(Event::FolderReady {
            folder: self.settings.path.clone(),
            plugins,
            executables,
            tasks,
        });
        self.tell_unknown_sections();
        let refused = |(file, known): (&String, &KnownFile)| {
            let (file, passing) = (file.clone(), known.state.is_retried());
            known.state.refusal().map(|refusal| Rejection { file, reason: refusal.reason.clone(), passing })
        };
        self.files.iter().filter_map(refused).collect()
    }

    /// Follows the folder until told to stop. `force` lists it at once and gives refused files another chance.
    pub async fn run(mut self, shutdown: CancellationToken, force: Arc<Notify>) -> Self {
        let part = self.part();
        self.scans.watch(self.services.events.clone()).await;
        let availability = Arc::clone(&self.availability);
        // What changed between the first listing and the first watch.
        let mut due = Instant::now();
        // A scan is to begin once the one that runs has ended.
        let mut wanted = false;
        loop {
            part.turn();
            if wanted && !self.scans.is_running() {
                wanted = false;
                self.scan();
                continue;
            }
            let scan_at = (!self.scans.is_running()).then(|| self.next_scan().map_or(due, |next| next.min(due)));
            let wake_at = scan_at.into_iter().chain(self.next_relaunch()).min();
            tokio::select! {
                () = shutdown.cancelled() => return self,
                () = part.tick() => continue,
                event = self.scans.next() => match self.take_scan_event(event) {
                    Some(Rescan::Now) => wanted = true,
                    Some(Rescan::WhenDue) => due = Instant::now() + self.scans.pause(),
                    None => {}
                },
                () = force.notified() => {
                    self.give_another_chance();
                    wanted = true;
                }
                () = sleep_until(wake_at) => {
                    wanted |= scan_at.is_some_and(|at| at <= Instant::now());
                }
                () = availability.notified() => self.publish(),
                Some(request) = self.requests.recv() => wanted |= self.follow_request(request),
                Some(launched) = self.launches.join_next() => self.take_launched(launched),
                Some(Ok(ended)) = self.retiring.join_next() => {
                    self.draining.retain(|generation| !Arc::ptr_eq(generation, &ended));
                }
            }
            self.look_at_trials();
            self.launch_what_is_due();
        }
    }

    /// Begins a scan, which reads what was asked for or is in doubt although it may not have changed.
    fn scan(&mut self) {
        let mut asked = mem::take(&mut self.asked);
        for (file, known) in &mut self.files {
            if known.is_in_doubt(&self.plugins) {
                known.state.reading();
                asked.insert(file.clone());
            }
        }
        self.scans.start(ScanRequest { settings: self.settings.clone(), asked });
    }

    /// When the next scan is due because of what is known of the files, or the missing folder is given up.
    fn next_scan(&self) -> Option<Instant> {
        if let Some((since, _)) = self.unusable {
            // Files cannot be read until the folder is back, which the watcher or the next rescan tells.
            return self.settings.missing_grace.filter(|_| !self.files.is_empty()).map(|grace| since + grace);
        }
        let in_doubt =
            |(file, known): (&String, &KnownFile)| known.is_in_doubt(&self.plugins) && !self.scans.will_read(file);
        let gone = self.files.values().filter_map(|known| match known.state {
            FileState::Gone { since } => Some(since + self.settings.settle),
            _ => None,
        });
        let doubt = self.files.iter().any(in_doubt).then(Instant::now);
        gone.chain(doubt).chain(self.scans.next_read()).min()
    }

    /// Deals with what the scanner says, and returns whether to scan again.
    fn take_scan_event(&mut self, event: ScanEvent) -> Option<Rescan> {
        match event {
            ScanEvent::Changed => Some(Rescan::Now),
            ScanEvent::Found(found) => {
                self.take_found(*found);
                while let Some(found) = self.scans.try_next() {
                    self.take_found(found);
                }
                None
            }
            ScanEvent::Ended(rescan) => {
                self.admit();
                self.publish();
                Some(rescan)
            }
        }
    }

    /// Ends all builds: each finishes its jobs, and what has not ended within `limit` is killed.
    pub async fn stop(mut self, limit: Duration) {
        self.launches.shutdown().await;
        let serving = self.files.values_mut().filter_map(|file| file.serving.take()).map(|serving| serving.generation);
        let held = self.held.drain(..).map(|held| held.generation);
        let all: Vec<_> = serving.chain(held).chain(self.outgoing.drain(..)).collect();
        for generation in &all {
            self.retiring.spawn(retire(Arc::clone(generation)));
        }
        let retired = async { while self.retiring.join_next().await.is_some() {} };
        if timeout(limit, retired).await.is_err() {
            for generation in all {
                generation.kill().await;
            }
            self.retiring.shutdown().await;
        }
    }

    /// Takes a build into service in its file's place.
    pub(super) fn serve(&mut self, file: &str, generation: Arc<Generation>, settings: PluginSettings, took: Duration) {
        let known = self.files.get_mut(file).expect("only builds of known files are served");
        let (replaced, trial) = match known.serving.take() {
            // The same build with other settings is no other build.
            Some(Serving { generation: same, trial, .. }) if same.build() == generation.build() => (Some(same), trial),
            Some(Serving { generation: before, .. }) => {
                let trial = Trial::after(&before);
                (Some(before), trial)
            }
            None => (None, None),
        };
        known.serving = Some(Serving::new(Arc::clone(&generation), settings, trial, Arc::clone(&self.availability)));
        known.state.serve();
        self.news.push(Event::PluginLoaded {
            build: describe(&generation),
            file: file.to_owned(),
            tasks: generation.tasks().iter().map(|task| task.name.clone()).collect(),
            replaced: replaced.as_ref().map(|generation| generation.build()),
            took,
        });
        self.news.extend(self.map.hidden_in(&generation, file));
        if let Some(replaced) = replaced {
            self.outgoing.push(replaced);
            self.retry_conflicts();
        }
    }

    /// Takes what a file serves out of service.
    pub(super) fn withdraw(&mut self, name: &str) {
        let Some(known) = self.files.get_mut(name) else { return };
        if let Some(Serving { generation, .. }) = known.serving.take() {
            self.news.push(Event::PluginRemoved {
                build: describe(&generation),
                file: name.to_owned(),
                tasks: generation.tasks().iter().map(|task| task.name.clone()).collect(),
            });
            self.outgoing.push(generation);
        }
        self.retry_conflicts();
    }

    /// Another file's tasks or name may have become free.
    fn retry_conflicts(&mut self) {
        self.files.values_mut().for_each(|known| known.state.freed());
    }

    /// Says once why a file is refused; what was serving under its name serves on.
    pub(super) fn refuse(&mut self, file: &str, refusal: Refusal) {
        let Some(known) = self.files.get_mut(file) else { return };
        let reason = refusal.reason.clone();
        if known.state.refuse(refusal) {
            let (file, serving) = (file.to_owned(), known.serves());
            let rejection = FileRejection { file, reason, serving, retry_in: None };
            self.services.events.emit(Event::FileRejected(rejection));
        }
    }

    /// Puts what the files have come to in force: first the map, since an old build takes jobs until the new one does; then
    /// it can be told, and the old builds can go.
    pub(super) fn publish(&mut self) {
        let of_kind = |kind| self.files.iter().filter(move |(_, known)| known.kind == kind);
        let in_order = of_kind(Kind::Plugin).chain(of_kind(Kind::Executable));
        let serving = in_order.filter_map(|(name, known)| Some((name.as_str(), &known.serving.as_ref()?.generation)));
        let in_force = self.map.put_in_force(serving);
        for event in self.news.drain(..).chain(in_force.published) {
            self.services.events.emit(event);
        }
        self.notices.shadow(in_force.shadowed);
        for generation in self.outgoing.drain(..) {
            self.draining.push(Arc::clone(&generation));
            self.retiring.spawn(self.services.events.parts().guard("retirement of a build", retire(generation)));
        }
    }
}

async fn retire(generation: Arc<Generation>) -> Arc<Generation> {
    generation.retire().await;
    generation
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn describe(generation: &Generation) -> PluginBuild {
    PluginBuild { plugin: generation.plugin().to_owned(), build: generation.build() }
}
