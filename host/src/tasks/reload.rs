//! The reloader: keeps the task map in step with the folder.
//!
//! One loop owns all that is known of the files. Launching a build may take seconds, so launches run beside the loop; the
//! map is published when they have ended. A file that fails at any step costs only itself, and what was serving serves on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    LiveTaskMap, Task, artifact,
    artifact::Unfit,
    folder::{FileError, FileKey, Folder, FolderError},
    watcher::Watcher,
};
use crate::{
    config::{FolderSettings, PluginLookup},
    events::{Event, PluginBuild},
    plugin::{Availability, BuildId, Generation, HostServices, Image, LaunchError},
};

/// So many builds are started at once.
const LAUNCHES_AT_ONCE: usize = 4;
/// A file that looks unfinished is looked at again after this long, and each time after twice as long …
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// … until it has looked unfinished for this long.
const UNFINISHED_FOR: Duration = Duration::from_secs(5);

/// A file that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub file: String,
    pub reason: String,
}

/// The tasks folder, from its first listing to the end of its last build.
#[derive(Debug)]
pub struct TasksFolder {
    settings: FolderSettings,
    plugins: PluginLookup,
    services: HostServices,
    map: Arc<LiveTaskMap>,
    files: BTreeMap<String, KnownFile>,
    launches: JoinSet<Launched>,
    launch_slots: Arc<Semaphore>,
    /// Builds that were launched and wait for the others to end, since they claim tasks that another build has now.
    held: Vec<(String, Arc<Generation>, Duration)>,
    /// Replaced and removed builds that finish their jobs.
    retiring: JoinSet<()>,
    /// A build crashed, came back, or was quarantined.
    availability: Arc<Notify>,
    missing_since: Option<Instant>,
    warned: BTreeSet<String>,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct KnownFile {
    /// The state that was last dealt with.
    key: Option<FileKey>,
    /// The build that is being launched, served or refused.
    build: Option<BuildId>,
    serving: Option<Serving>,
    refused: Option<String>,
    /// Refused because of another file, so that its disappearance is a reason to try again.
    conflict: bool,
    unfinished: Option<Unfinished>,
}

#[derive(Debug)]
struct Serving {
    generation: Arc<Generation>,
    _follow: AbortOnDropHandle<()>,
}

/// A file that somebody seems to be still writing.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    since: Instant,
    wait: Duration,
    next_look: Instant,
}

#[derive(Debug)]
struct Launched {
    file: String,
    build: BuildId,
    took: Duration,
    result: Result<Arc<Generation>, LaunchError>,
}

impl TasksFolder {
    pub fn new(settings: FolderSettings, plugins: PluginLookup, services: HostServices, map: Arc<LiveTaskMap>) -> Self {
        Self {
            settings,
            plugins,
            services,
            map,
            files: BTreeMap::new(),
            launches: JoinSet::new(),
            launch_slots: Arc::new(Semaphore::new(LAUNCHES_AT_ONCE)),
            held: Vec::new(),
            retiring: JoinSet::new(),
            availability: Arc::new(Notify::new()),
            missing_since: None,
            warned: BTreeSet::new(),
        }
    }

    /// Lists the folder for the first time, and returns when every file in it serves or was refused.
    pub async fn load_all(&mut self) -> Result<Vec<Rejection>, FolderError> {
        if let Err(error) = self.scan(false)
            && !(self.settings.tolerate_broken_start && matches!(error, FolderError::Missing(_)))
        {
            return Err(error);
        }
        loop {
            while let Some(launched) = self.launches.join_next().await {
                self.take_launched(launched);
            }
            let Some(look) = self.next_look() else { break };
            tokio::time::sleep_until(look.into()).await;
            let _ = self.scan(false);
        }
        let tasks = self.map.load().identifiers().len();
        let plugins = self.files.values().filter(|file| file.serving.is_some()).count();
        self.services.events.emit(Event::FolderReady { folder: self.settings.path.clone(), plugins, tasks });
        let refused = |(file, known): (&String, &KnownFile)| {
            known.refused.as_ref().map(|reason| Rejection { file: file.clone(), reason: reason.clone() })
        };
        Ok(self.files.iter().filter_map(refused).collect())
    }

    /// Follows the folder until told to stop. `force` lists it at once and gives refused files another chance.
    pub async fn run(mut self, shutdown: CancellationToken, force: Arc<Notify>) -> Self {
        let FolderSettings { path, settle, settle_cap, rescan, .. } = self.settings.clone();
        let mut watcher = Watcher::new(&path, settle, settle_cap, self.services.events.clone());
        let availability = Arc::clone(&self.availability);
        // What changed between the first listing and the first watch.
        let mut due = Instant::now();
        loop {
            let look = self.next_look().map_or(due, |look| look.min(due));
            let mut list = Some(false);
            tokio::select! {
                () = shutdown.cancelled() => return self,
                () = watcher.changed() => {}
                () = force.notified() => list = Some(true),
                () = tokio::time::sleep_until(look.into()) => {}
                () = availability.notified() => list = None,
                Some(launched) = self.launches.join_next() => {
                    self.take_launched(launched);
                    list = None;
                }
                Some(_) = self.retiring.join_next() => list = None,
            }
            match list {
                Some(forced) => {
                    watcher.arm();
                    // A folder that cannot be listed was announced; it is looked at again.
                    let _ = self.scan(forced);
                    due = Instant::now() + watcher.rescan(rescan);
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
        let all: Vec<_> = serving.chain(held).collect();
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

    /// Lists the folder and begins to launch what is new.
    fn scan(&mut self, forced: bool) -> Result<(), FolderError> {
        let listed = Folder::open(&self.settings.path, self.settings.strict_permissions)
            .and_then(|(folder, warning)| Ok((folder.list()?, folder, warning)));
        let (names, folder, warning) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.folder_is_missing(&error);
                return Err(error);
            }
        };
        if self.missing_since.take().is_some() {
            self.services.events.emit(Event::FolderBack { folder: self.settings.path.clone() });
        }
        self.warn(&self.settings.path.display().to_string(), warning);
        let gone: Vec<String> = self.files.keys().filter(|name| names.binary_search(name).is_err()).cloned().collect();
        let removed = !gone.is_empty();
        for name in gone {
            self.remove(&name);
        }
        for name in &names {
            let known = self.files.entry(name.clone()).or_default();
            if forced || (removed && known.conflict) {
                known.key = None;
                known.refused = None;
            }
            self.look_at(&folder, name);
        }
        if self.launches.is_empty() {
            self.publish();
        }
        Ok(())
    }

    /// Without a folder there is no word on its files; only after a while does that mean that they are gone.
    fn folder_is_missing(&mut self, error: &FolderError) {
        let first = self.missing_since.is_none();
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if first {
            let event = Event::FolderMissing { folder: self.settings.path.clone(), reason: error.to_string() };
            self.services.events.emit(event);
        }
        if self.settings.missing_grace.is_some_and(|grace| since.elapsed() >= grace) {
            let names: Vec<String> = self.files.keys().cloned().collect();
            names.iter().for_each(|name| self.remove(name));
            self.publish();
        }
    }

    fn look_at(&mut self, folder: &Folder, name: &str) {
        match self.read(folder, name) {
            Ok(None) => {}
            Ok(Some(image)) => self.launch(name, image),
            Err(reason) => self.refuse(name, reason, false),
        }
    }

    /// The image of a file whose contents are new; the error is why it is refused.
    fn read(&mut self, folder: &Folder, name: &str) -> Result<Option<Arc<Image>>, String> {
        let mut file = folder.open_file(name).map_err(|error| error.to_string())?;
        let known = self.files.get_mut(name).expect("looked-at files are known");
        if known.key == Some(file.key) {
            return Ok(None);
        }
        let warning = file.warning.take();
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(FileError::Changing) => return known.wait_for_writer(FileError::Changing.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let build = artifact::hash(&bytes);
        if known.build == Some(build) && (known.serving.is_some() || known.refused.is_some()) {
            // Touched, or written again with the same contents.
            known.key = Some(file.key);
            known.unfinished = None;
            return Ok(None);
        }
        let artifact = match artifact::verify(&bytes, build) {
            Ok(artifact) => artifact,
            // A file is empty first, then short; whoever writes it may need a while.
            Err(unfit @ (Unfit::Empty | Unfit::Truncated { .. })) => {
                let waiting = known.wait_for_writer(unfit.to_string());
                if waiting.is_err() {
                    (known.key, known.build) = (Some(file.key), Some(build));
                }
                return waiting;
            }
            Err(unfit) => {
                (known.key, known.build) = (Some(file.key), Some(build));
                return Err(unfit.to_string());
            }
        };
        (known.key, known.build, known.unfinished) = (Some(file.key), Some(build), None);
        self.warn(name, warning);
        Image::seal(name, artifact.build, &bytes[..artifact.loadable])
            .map(|image| Some(Arc::new(image)))
            .map_err(|error| format!("cannot be copied into memory: {error}"))
    }

    fn launch(&mut self, name: &str, image: Arc<Image>) {
        if let Some(other) = self.other_file_of(name, &image.plugin) {
            let reason = format!(
                "would be plugin {}, which {other} is already: remove one of them, or rename it to another plugin",
                image.plugin
            );
            return self.refuse(name, reason, true);
        }
        let settings = self.plugins.get(&image.plugin).clone();
        let (services, slots, file) = (self.services.clone(), Arc::clone(&self.launch_slots), name.to_owned());
        self.launches.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let began = Instant::now();
            let build = image.build;
            let result = Generation::launch(image, &settings, &services).await;
            Launched { file, build, took: began.elapsed(), result }
        });
    }

    /// Another file that has the same plugin name, as `x.so` and `libx.so` do.
    fn other_file_of(&self, name: &str, plugin: &str) -> Option<&str> {
        let same = |other: &&String| *other != name && Image::plugin_name(other) == plugin;
        let in_force = |other: &&String| {
            let known = &self.files[*other];
            known.serving.is_some() || (known.build.is_some() && known.refused.is_none())
        };
        self.files.keys().filter(same).find(in_force).map(String::as_str)
    }

    fn take_launched(&mut self, launched: Result<Launched, tokio::task::JoinError>) {
        // An error would be a panic of the launch itself; the file is launched again when it changes.
        let Ok(Launched { file, build, took, result }) = launched else { return };
        // Replaced again, or removed, while it was launched.
        let outdated = self.files.get(&file).is_none_or(|known| known.build != Some(build));
        match result {
            Ok(generation) if outdated => self.retire(generation),
            Ok(generation) => self.held.push((file, generation, took)),
            Err(_) if outdated => {}
            Err(error) => self.refuse(&file, error.to_string(), false),
        }
        self.admit();
        if self.launches.is_empty() {
            self.publish();
        }
    }

    /// Takes launched builds into service. One that claims another's task waits while launches go on, since the other may
    /// be about to be replaced by a build without it, and is refused after that.
    fn admit(&mut self) {
        self.held.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        loop {
            let fits =
                |(file, generation, _): &(String, Arc<Generation>, Duration)| self.conflict(file, generation).is_none();
            let Some(next) = self.held.iter().position(fits) else { break };
            let (file, generation, took) = self.held.remove(next);
            self.serve(&file, generation, took);
        }
        if self.launches.is_empty() {
            for (file, generation, _) in std::mem::take(&mut self.held) {
                let reason = self.conflict(&file, &generation).unwrap_or_default();
                self.retire(generation);
                self.refuse(&file, reason, true);
            }
        }
    }

    /// Which task of a build another file has, in a sentence.
    fn conflict(&self, file: &str, generation: &Generation) -> Option<String> {
        let others = || self.files.iter().filter(|(other, _)| *other != file);
        generation.tasks().iter().find_map(|task| {
            let (other, _) = others().find(|(_, known)| {
                let theirs = known.serving.as_ref().map(|serving| serving.generation.tasks());
                theirs.is_some_and(|tasks| tasks.iter().any(|theirs| theirs.name == task.name))
            })?;
            Some(format!(
                "has the task {}, which {other} has already: rename the task in one of them, or remove one of the files",
                task.name
            ))
        })
    }

    fn serve(&mut self, file: &str, generation: Arc<Generation>, took: Duration) {
        let follow = {
            let (mut availability, changed) = (generation.availability(), Arc::clone(&self.availability));
            tokio::spawn(async move {
                while availability.changed().await.is_ok() {
                    changed.notify_one();
                }
            })
        };
        let serving = Serving { generation: Arc::clone(&generation), _follow: AbortOnDropHandle::new(follow) };
        let known = self.files.get_mut(file).expect("launched files are known");
        let replaced = known.serving.replace(serving).map(|serving| serving.generation);
        (known.refused, known.conflict) = (None, false);
        self.services.events.emit(Event::PluginLoaded {
            build: describe(&generation),
            file: file.to_owned(),
            tasks: generation.tasks().iter().map(|task| task.name.clone()).collect(),
            replaced: replaced.as_ref().map(|generation| generation.build()),
            took,
        });
        if let Some(replaced) = replaced {
            // In the map first: the old build takes jobs until the new one does.
            self.publish();
            self.retire(replaced);
        }
    }

    fn remove(&mut self, name: &str) {
        let Some(known) = self.files.remove(name) else { return };
        if let Some(Serving { generation, .. }) = known.serving {
            self.publish();
            self.services.events.emit(Event::PluginRemoved {
                build: describe(&generation),
                file: name.to_owned(),
                tasks: generation.tasks().iter().map(|task| task.name.clone()).collect(),
            });
            self.retire(generation);
        }
    }

    /// Says once why a file is refused; what was serving under its name serves on.
    fn refuse(&mut self, name: &str, reason: String, conflict: bool) {
        let Some(known) = self.files.get_mut(name) else { return };
        known.conflict = conflict;
        known.unfinished = None;
        if known.refused.as_ref() == Some(&reason) {
            return;
        }
        known.refused = Some(reason.clone());
        let serving = known.serving.as_ref().map(|serving| serving.generation.build());
        self.services.events.emit(Event::FileRejected { file: name.to_owned(), reason, serving });
    }

    fn retire(&mut self, generation: Arc<Generation>) {
        self.retiring.spawn(async move { generation.retire().await });
    }

    /// Puts a new map in force if another set of builds can take jobs.
    fn publish(&self) {
        let mut tasks = BTreeMap::new();
        for serving in self.files.values().filter_map(|file| file.serving.as_ref()) {
            let generation = &serving.generation;
            if *generation.availability().borrow() != Availability::Serving {
                continue;
            }
            for (index, task) in generation.tasks().iter().enumerate() {
                let index = u32::try_from(index).expect("a plugin has fewer tasks than u32 counts");
                tasks.insert(task.name.clone(), Task { generation: Arc::clone(generation), index });
            }
        }
        let before = self.map.load();
        let same = before.identifiers().len() == tasks.len()
            && before.iter().zip(&tasks).all(|((old_name, old), (name, new))| {
                old_name == name && Arc::ptr_eq(&old.generation, &new.generation)
            });
        if same {
            return;
        }
        let names = |one: &mut dyn Iterator<Item = &str>| one.map(str::to_owned).collect::<Vec<_>>();
        let added = names(&mut tasks.keys().map(String::as_str).filter(|name| before.get(name).is_none()));
        let removed = names(&mut before.identifiers().filter(|name| !tasks.contains_key(*name)));
        let map = self.map.publish(tasks);
        let event = Event::TaskMapPublished { epoch: map.epoch(), tasks: map.identifiers().len(), added, removed };
        self.services.events.emit(event);
    }

    /// When the next unfinished file is to be looked at again, or the missing folder is given up.
    fn next_look(&self) -> Option<Instant> {
        let unfinished = self.files.values().filter_map(|file| file.unfinished).map(|unfinished| unfinished.next_look);
        let give_up = self
            .missing_since
            .zip(self.settings.missing_grace)
            .filter(|_| !self.files.is_empty())
            .map(|(since, grace)| since + grace);
        unfinished.chain(give_up).min()
    }

    fn warn(&mut self, what: &str, warning: Option<String>) {
        if let Some(reason) = warning
            && self.warned.insert(what.to_owned())
        {
            self.services.events.emit(Event::LaxPermissions { what: what.to_owned(), reason });
        }
    }
}

impl KnownFile {
    /// Looks again later, or after a while takes the file for what it is.
    fn wait_for_writer(&mut self, reason: String) -> Result<Option<Arc<Image>>, String> {
        let now = Instant::now();
        let (since, wait) = match self.unfinished {
            Some(Unfinished { since, .. }) if now - since >= UNFINISHED_FOR => return Err(reason),
            Some(Unfinished { since, wait, .. }) => (since, wait * 2),
            None => (now, FIRST_LOOK),
        };
        let next_look = (now + wait).min(since + UNFINISHED_FOR);
        self.unfinished = Some(Unfinished { since, wait, next_look });
        Ok(None)
    }
}

fn describe(generation: &Generation) -> PluginBuild {
    PluginBuild { plugin: generation.plugin().to_owned(), build: generation.build() }
}
