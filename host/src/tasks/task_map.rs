//! Which build runs which task: immutable, and swapped whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    events::{Event, PluginBuild},
    plugin::{Availability, Generation, TaskSpec},
};

/// A task and the build that runs it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The build.
    pub generation: Arc<Generation>,
    /// The task's place in it.
    pub index: u32,
}

impl Task {
    /// What the build declares of the task.
    pub fn spec(&self) -> &TaskSpec {
        &self.generation.tasks()[self.index as usize]
    }
}

/// All tasks that can be run at one moment.
#[derive(Debug, Default)]
pub struct TaskMap {
    epoch: u64,
    tasks: BTreeMap<String, Task>,
}

impl TaskMap {
    /// Counts the maps that were published before this one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The task that jobs of this identifier run on.
    pub fn get(&self, identifier: &str) -> Option<&Task> {
        self.tasks.get(identifier)
    }

    /// All identifiers, sorted.
    pub fn identifiers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// All identifiers with their tasks, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Task)> {
        self.tasks.iter().map(|(name, task)| (name.as_str(), task))
    }
}

/// The current task map, shared by the one who publishes it and those who work by it.
#[derive(Debug)]
pub struct LiveTaskMap {
    current: ArcSwap<TaskMap>,
    epoch: watch::Sender<u64>,
    schedules: watch::Sender<Vec<DeclaredSchedule>>,
    publishing: Mutex<()>,
    /// Tasks that are part of this program: whatever is published, they are in it, before those of the same name.
    built_in: Option<Arc<Generation>>,
}

/// A schedule that a build declares beside a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSchedule {
    pub plugin: String,
    pub task: String,
    /// A line as in a crontab, without the task's name.
    pub schedule: String,
}

impl Default for LiveTaskMap {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            epoch: watch::Sender::new(0),
            schedules: watch::Sender::new(Vec::new()),
            publishing: Mutex::new(()),
            built_in: None,
        }
    }
}

impl LiveTaskMap {
    /// A map in which the tasks of this build are, and stay, whatever else is put in force.
    pub fn with_built_in(generation: Arc<Generation>) -> Self {
        let map = Self { built_in: Some(generation), ..Self::default() };
        map.put_in_force(std::iter::empty());
        map
    }

    /// Says which tasks of a file's build are not run, because this program has tasks of the same names.
    pub(super) fn hidden_in(&self, generation: &Generation, file: &str) -> Option<Event> {
        let own = self.built_in.as_ref()?.tasks();
        let hidden = generation.tasks().iter().filter(|task| own.iter().any(|own| own.name == task.name));
        let tasks: Vec<String> = hidden.map(|task| task.name.clone()).collect();
        let build = PluginBuild { plugin: generation.plugin().to_owned(), build: generation.build() };
        (!tasks.is_empty()).then(|| Event::TasksHidden { build, file: file.to_owned(), tasks })
    }

    /// The map as of now.
    pub fn load(&self) -> Arc<TaskMap> {
        self.current.load_full()
    }

    /// Replaces the map. From here on, [`LiveTaskMap::load`] gives the new one.
    pub fn publish(&self, tasks: BTreeMap<String, Task>) -> Arc<TaskMap> {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let map = Arc::new(TaskMap { epoch: self.current.load().epoch + 1, tasks });
        self.current.store(Arc::clone(&map));
        self.epoch.send_replace(map.epoch);
        map
    }

    /// Replaces the map by the tasks of these builds, as far as they take jobs now, and says what that changed, if anything.
    pub(super) fn put_in_force<'a>(&'a self, generations: impl Iterator<Item = &'a Arc<Generation>>) -> Option<Event> {
        let generations: Vec<_> = generations.chain(&self.built_in).collect();
        self.declare(&generations);
        let mut tasks = BTreeMap::new();
        for generation in generations.into_iter().filter(|one| *one.availability().borrow() == Availability::Serving) {
            for (index, task) in (0..).zip(generation.tasks()) {
                tasks.insert(task.name.clone(), Task { generation: Arc::clone(generation), index });
            }
        }
        let before = self.load();
        let same = before.identifiers().len() == tasks.len()
            && before.iter().zip(&tasks).all(|((old_name, old), (name, new))| {
                old_name == name && Arc::ptr_eq(&old.generation, &new.generation)
            });
        if same {
            return None;
        }
        let added = tasks.keys().filter(|name| before.get(name).is_none()).cloned().collect();
        let removed = before.identifiers().filter(|name| !tasks.contains_key(*name)).map(str::to_owned).collect();
        let map = self.publish(tasks);
        Some(Event::TaskMapPublished { epoch: map.epoch(), tasks: map.identifiers().len(), added, removed })
    }

    /// What is declared beside the tasks holds while a crashed plugin starts again, too: its jobs wait for it. Only what is
    /// declared beside tasks that are hidden by the program's own does not.
    fn declare(&self, generations: &[&Arc<Generation>]) {
        let own = self.built_in.as_ref();
        let is_hidden = |generation: &Arc<Generation>, name: &str| {
            own.is_some_and(|own| !Arc::ptr_eq(own, generation) && own.tasks().iter().any(|task| task.name == name))
        };
        let mut declared = Vec::new();
        for generation in generations {
            for task in generation.tasks().iter().filter(|task| !is_hidden(generation, &task.name)) {
                declared.extend(task.schedules.iter().map(|schedule| DeclaredSchedule {
                    plugin: generation.plugin().to_owned(),
                    task: task.name.clone(),
                    schedule: schedule.clone(),
                }));
            }
        }
        self.schedules.send_if_modified(|before| {
            let changed = *before != declared;
            *before = declared;
            changed
        });
    }

    /// Follows the schedules that the builds in force declare.
    pub fn schedules(&self) -> watch::Receiver<Vec<DeclaredSchedule>> {
        self.schedules.subscribe()
    }

    /// Hears of each replacement.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }
}
