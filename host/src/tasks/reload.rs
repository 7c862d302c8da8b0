//! The reloader: keeps the task map in step with the folder.
//!
//! One loop owns all that is known of the files. Launching a build may take seconds, so launches run beside the loop; the
//! map is published when they have ended. A file that fails at any step costs only itself, and what was serving serves on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::{self, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    LiveTaskMap,
    folder::{Folder, FolderError},
    handle::Request,
    known_file::{KnownFile, Serving},
    launches::Launched,
    listing::{Candidate, Kind, Skipped},
    roll_back::Trial,
    scanning::contained,
    trust::Trust,
    watcher::Watcher,
};
use crate::{
    blocking::off_the_runtime,
    config::{FolderSettings, PluginLookup},
    events::{Event, FileRejection, PluginBuild},
    parts::Part,
    plugin::{Generation, HostServices},
};

/// So many builds are started at once.
const LAUNCHES_AT_ONCE: usize = 4;
/// Links to files elsewhere are followed this often, and the allow-list is read, since no event tells of what is written there.
const LINKED_RESCAN: Duration = Duration::from_secs(1);

/// A file that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub file: String,
    pub reason: String,
    /// It is tried again, since the reason may pass by itself.
    pub passing: bool,
}

/// The tasks folder, from its first listing to the end of its last build.
#[derive(Debug)]
pub struct TasksFolder {
    pub(super) settings: FolderSettings,
    pub(super) trust: Trust,
    pub(super) plugins: PluginLookup,
    pub(super) services: HostServices,
    part: Part,
    map: Arc<LiveTaskMap>,
    pub(super) files: BTreeMap<String, KnownFile>,
    pub(super) launches: JoinSet<Launched>,
    /// Which file each of them is for.
    pub(super) launching: HashMap<task::Id, String>,
    pub(super) launch_slots: Arc<Semaphore>,
    /// Builds that were launched and wait for the others to end, since they claim tasks that another build has now.
    pub(super) held: Vec<(String, Arc<Generation>, Duration)>,
    /// Replaced and removed builds that finish their jobs.
    retiring: JoinSet<()>,
    /// A build crashed, came back, or was quarantined.
    pub(super) availability: Arc<Notify>,
    /// Replaced and removed builds that are still in the map, and what is to be said when they no longer are.
    pub(super) outgoing: Vec<Arc<Generation>>,
    news: Vec<Event>,
    /// It has been listed once, so that an error no longer ends the start.
    pub(super) listed: bool,
    /// Since when the folder cannot be used, and why.
    pub(super) unusable: Option<(Instant, FolderError)>,
    warned: BTreeSet<String>,
    /// What lies in the folder but is no plugin and no task, as it was said.
    pub(super) skipped: BTreeMap<String, Skipped>,
    /// Which executables' tasks are another file's, as it was said.
    pub(super) shadowed: BTreeMap<String, (String, String)>,
    /// The folders below the folder.
    pub(super) folders: Vec<PathBuf>,
    /// What others ask.
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
}

impl TasksFolder {
    pub fn new(settings: FolderSettings, plugins: PluginLookup, services: HostServices, map: Arc<LiveTaskMap>) -> Self {
        Self {
            trust: Trust::of(&settings),
            settings,
            plugins,
            part: services.events.parts().part("tasks folder"),
            services,
            map,
            files: BTreeMap::new(),
            launches: JoinSet::new(),
            launching: HashMap::new(),
            launch_slots: Arc::new(Semaphore::new(LAUNCHES_AT_ONCE)),
            held: Vec::new(),
            retiring: JoinSet::new(),
            availability: Arc::new(Notify::new()),
            outgoing: Vec::new(),
            news: Vec::new(),
            listed: false,
            unusable: None,
            warned: BTreeSet::new(),
            skipped: BTreeMap::new(),
            shadowed: BTreeMap::new(),
            folders: Vec::new(),
            requests: mpsc::unbounded_channel().1,
        }
    }

    /// What it is a part of the host as.
    pub(crate) fn part(&self) -> Part {
        self.part.clone()
    }

    /// Lists the folder for the first time, and returns when every file in it serves or was refused.
    pub async fn load_all(self) -> Result<(Self, Vec<Rejection>), FolderError> {
        let (mut this, listed) = self.scan_aside(false).await;
        if let Err(error) = listed
            && !this.may_start_without(&error)
        {
            return Err(error);
        }
        this.listed = true;
        loop {
            while let Some(launched) = this.launches.join_next_with_id().await {
                this.take_launched(launched);
            }
            let Some(look) = this.next_look() else { break };
            tokio::time::sleep_until(look.into()).await;
            this = this.scan_aside(false).await.0;
        }
        let rejections = this.announce_ready();
        Ok((this, rejections))
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
            let (file, passing) = (file.clone(), known.relaunch.is_some());
            known.refused.as_ref().map(|reason| Rejection { file, reason: reason.clone(), passing })
        };
        self.files.iter().filter_map(refused).collect()
    }

    /// Follows the folder until told to stop. `force` lists it at once and gives refused files another chance.
    pub async fn run(mut self, shutdown: CancellationToken, force: Arc<Notify>) -> Self {
        let part = self.part();
        let FolderSettings { path, settle, settle_cap, .. } = self.settings.clone();
        let events = self.services.events.clone();
        let mut watcher = off_the_runtime(move || Watcher::new(&path, settle, settle_cap, events)).await;
        let availability = Arc::clone(&self.availability);
        // What changed between the first listing and the first watch.
        let mut due = Instant::now();
        loop {
            part.turn();
            let look = [self.next_look(), self.next_relaunch()].into_iter().flatten().fold(due, Instant::min);
            let mut list = Some(false);
            tokio::select! {
                () = shutdown.cancelled() => return self,
                () = part.tick() => continue,
                () = watcher.changed() => {}
                () = force.notified() => list = Some(true),
                () = tokio::time::sleep_until(look.into()) => {}
                () = availability.notified() => list = None,
                Some(request) = self.requests.recv() => {
                    list = self.follow_request(request).then_some(true);
                    watcher.set_pace(self.settings.settle, self.settings.settle_cap);
                }
                Some(launched) = self.launches.join_next_with_id() => {
                    self.take_launched(launched);
                    list = None;
                }
                Some(_) = self.retiring.join_next() => list = None,
            }
            self.look_at_trials();
            self.launch_what_is_due();
            match list {
                Some(forced) => {
                    let again;
                    (self, watcher, again) = part.outside(self.watch_and_scan(watcher, forced)).await;
                    let outside = self.settings.manifest.is_some() || self.files.values().any(|file| file.outside);
                    let rescan = self.settings.rescan;
                    let usual = if outside { rescan.min(LINKED_RESCAN) } else { rescan };
                    due = Instant::now() + if again { Duration::ZERO } else { watcher.rescan(usual) };
                }
                None => self.publish(),
            }
        }
    }

    /// Ends all builds: each finishes its jobs, and what has not ended within `limit` is killed.
    pub async fn stop(mut self, limit: Duration) {
        self.launches.shutdown().await;
        let serving = self.files.values_mut().filter_map(|file| file.serving.take()).map(|serving| serving.generation);
        let held = self.held.drain(..).map(|(_, generation, _)| generation);
        let all: Vec<_> = serving.chain(held).chain(self.outgoing.drain(..)).collect();
        for generation in &all {
            let generation = Arc::clone(generation);
            self.retiring.spawn(async move { generation.retire().await });
        }
        let retired = async { while self.retiring.join_next().await.is_some() {} };
        if timeout(limit, retired).await.is_err() {
            for generation in all {
                generation.kill().await;
            }
            self.retiring.shutdown().await;
        }
    }

    pub(super) fn look_at(&mut self, folder: &Folder, name: &str, candidate: &Candidate) {
        let known = self.files.get_mut(name).expect("looked-at files are known");
        let was_refused = known.refused.is_some();
        match contained(|| known.read(folder, name, candidate, &self.trust)) {
            Ok(None) => {
                if let Some(serving) = known.serving.as_ref().filter(|_| was_refused && known.refused.is_none()) {
                    let build = serving.generation.build();
                    self.services.events.emit(Event::FileRestored(name.to_owned(), build));
                }
            }
            Ok(Some((image, warning))) => {
                self.warn(name, warning);
                self.launch(name, Arc::new(image));
            }
            Err(reason) => self.refuse(name, reason, false),
        }
    }

    pub(super) fn serve(&mut self, file: &str, generation: Arc<Generation>, took: Duration) {
        let serving = Serving::new(Arc::clone(&generation), Arc::clone(&self.availability));
        let known = self.files.get_mut(file).expect("wanted files are known");
        let replaced = known.serving.replace(serving).map(|serving| serving.generation);
        // The same build with other settings is no other build.
        if replaced.as_ref().is_none_or(|replaced| replaced.build() != generation.build()) {
            known.trial = replaced.as_deref().and_then(Trial::after);
        }
        (known.refused, known.conflict, known.relaunch) = (None, false, None);
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

    pub(super) fn remove(&mut self, name: &str) {
        self.withdraw(name);
        self.files.remove(name);
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
        for known in self.files.values_mut().filter(|known| known.conflict) {
            known.retry = true;
        }
    }

    /// Says once why a file is refused; what was serving under its name serves on.
    pub(super) fn refuse(&mut self, name: &str, reason: String, conflict: bool) {
        let Some(known) = self.files.get_mut(name) else { return };
        if known.refuse(&reason, conflict) {
            let serving = known.serving.as_ref().map(|serving| serving.generation.build());
            let file = name.to_owned();
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
        self.tell_shadowed(in_force.shadowed);
        for generation in self.outgoing.drain(..) {
            let retire = async move { generation.retire().await };
            self.retiring.spawn(self.services.events.parts().guard("retirement of a build", retire));
        }
    }

    /// When a file that looked unfinished or gone is to be looked at again, or the missing folder is given up.
    fn next_look(&self) -> Option<Instant> {
        if let Some((since, _)) = self.unusable {
            // Files cannot be looked at until the folder is back, which the watcher or the next rescan tells.
            return self.settings.missing_grace.filter(|_| !self.files.is_empty()).map(|grace| since + grace);
        }
        let looks = self.files.values().flat_map(|known| {
            let gone = known.gone_since.map(|since| since + self.settings.settle);
            [known.next_look(), gone, known.retry.then(Instant::now)].into_iter().flatten()
        });
        looks.min()
    }

    pub(super) fn warn(&mut self, what: &str, warning: Option<String>) {
        if let Some(reason) = warning
            && self.warned.insert(what.to_owned())
        {
            self.services.events.emit(Event::LaxPermissions { what: what.to_owned(), reason });
        }
    }
}

fn describe(generation: &Generation) -> PluginBuild {
    PluginBuild { plugin: generation.plugin().to_owned(), build: generation.build() }
}
