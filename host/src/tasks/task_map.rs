//! Which build runs which task: immutable, and swapped whole.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use crate::{
    events::{Event, PluginBuild},
    plugin::{Availability, Generation, TaskSpec},
    sync::{ArcSwap, Mutex, PoisonError, watch},
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

/// Stands for a file's name. No file has it, since it is none.
const THIS_PROGRAM: &str = "";

/// What came of putting files in force.
#[derive(Debug)]
pub(super) struct InForce {
    /// The event that tells of it, if that changed the map.
    pub(super) published: Option<Event>,
    /// Which files get no jobs of which task, and the file that does.
    pub(super) shadowed: BTreeMap<String, (String, String)>,
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

    /// The task that a job of this identifier runs on now, or why there is none. Where its build has refused the job before,
    /// since it was replaced at that very moment, that is the next build's.
    pub fn find(&self, identifier: &str, refused: Option<&Task>) -> Result<Task, &'static str> {
        let map = self.current.load();
        let task = map.get(identifier).ok_or("no plugin has this task any more")?;
        if refused.is_some_and(|refused| Arc::ptr_eq(&refused.generation, &task.generation)) {
            return Err("its plugin is not taking jobs");
        }
        Ok(task.clone())
    }

    /// Replaces the map. From here on, [`LiveTaskMap::load`] gives the new one.
    pub fn publish(&self, tasks: BTreeMap<String, Task>) -> Arc<TaskMap> {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = Arc::new(TaskMap { epoch: self.current.load().epoch + 1, tasks });
        self.current.store(Arc::clone(&map));
        self.epoch.send_replace(map.epoch);
        map
    }

    /// Replaces the map by the tasks of these files' builds, as far as they take jobs now, and says what that changed, if
    /// anything. A task goes to the first that has it, even while that takes no jobs; to this program before any file.
    pub(super) fn put_in_force<'a>(&'a self, files: impl Iterator<Item = (&'a str, &'a Arc<Generation>)>) -> InForce {
        let files: Vec<_> = self.built_in.iter().map(|own| (THIS_PROGRAM, own)).chain(files).collect();
        let mut owners: BTreeMap<&str, (&str, &Arc<Generation>, u32)> = BTreeMap::new();
        let mut shadowed = BTreeMap::new();
        for (file, generation) in files {
            for (index, task) in (0..).zip(generation.tasks()) {
                match owners.entry(&task.name) {
                    Entry::Vacant(free) => drop(free.insert((file, generation, index))),
                    // That this program has the task was said when the file came.
                    Entry::Occupied(owned) if owned.get().0 == THIS_PROGRAM => {}
                    Entry::Occupied(owned) => {
                        shadowed.insert(file.to_owned(), (task.name.clone(), owned.get().0.to_owned()));
                    }
                }
            }
        }
        self.declare(owners.values().map(|(_, generation, index)| (*generation, *index)));
        let serves = |one: &Arc<Generation>| *one.availability().borrow() == Availability::Serving;
        let tasks = owners
            .into_iter()
            .filter(|(_, (_, generation, _))| serves(generation))
            .map(|(name, (_, generation, index))| (name.to_owned(), Task { generation: Arc::clone(generation), index }))
            .collect();
        InForce { published: self.replace(tasks), shadowed }
    }

    /// Publishes a map unless it is the one that is in force.
    fn replace(&self, tasks: BTreeMap<String, Task>) -> Option<Event> {
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

    /// What is declared beside the tasks holds while a crashed plugin starts again, too: its jobs wait for it. What is declared
    /// beside a task that another file or this program has does not.
    fn declare<'a>(&self, owned: impl Iterator<Item = (&'a Arc<Generation>, u32)>) {
        let mut declared = Vec::new();
        for (generation, index) in owned {
            let task = &generation.tasks()[index as usize];
            declared.extend(task.schedules.iter().map(|schedule| DeclaredSchedule {
                plugin: generation.plugin().to_owned(),
                task: task.name.clone(),
                schedule: schedule.clone(),
            }));
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
