//! All schedules of this host, from wherever they come, under one identifier each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    crontab::{CronItem, parse_schedule},
    events::{Event, Events},
};

/// A schedule that a plugin declares beside a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginSchedule {
    pub plugin: String,
    pub task: String,
    /// A line as in a crontab, without the task's name.
    pub schedule: String,
}

/// The sources, and what was said about them.
#[derive(Debug)]
pub(super) struct Sources {
    file: watch::Receiver<Vec<Arc<CronItem>>>,
    given: Vec<Arc<CronItem>>,
    plugins: watch::Receiver<Vec<PluginSchedule>>,
    events: Events,
    /// Schedules that do not count, by their identifier and where they are from: each is spoken of once.
    announced: BTreeSet<(String, String)>,
}

impl Sources {
    pub(super) fn new(
        file: watch::Receiver<Vec<Arc<CronItem>>>,
        given: Vec<CronItem>,
        plugins: watch::Receiver<Vec<PluginSchedule>>,
        events: Events,
    ) -> Self {
        let given = given.into_iter().map(Arc::new).collect();
        Self { file, given, plugins, events, announced: BTreeSet::new() }
    }

    /// Waits until one of the sources has changed. It may be dropped at any time.
    pub(super) async fn changed(&mut self) {
        let Self { file, plugins, .. } = self;
        tokio::select! {
            () = next_change(file) => {}
            () = next_change(plugins) => {}
        }
    }

    /// The schedules that count as of now. Where two have one identifier, it is the crontab's, so that whoever runs the host
    /// can replace what a plugin declares; then the program's; then that of the plugin whose name comes first.
    pub(super) fn current(&mut self) -> Vec<Arc<CronItem>> {
        let mut chosen = Chosen::default();
        for item in self.file.borrow_and_update().iter().cloned() {
            chosen.add(item, || "the crontab".to_owned());
        }
        for item in &self.given {
            chosen.add(Arc::clone(item), || "the program's settings".to_owned());
        }
        let mut declared = self.plugins.borrow_and_update().clone();
        // The order of one task's schedules is the plugin's.
        declared.sort_by(|one, other| (&one.plugin, &one.task).cmp(&(&other.plugin, &other.task)));
        let mut said = BTreeSet::new();
        for PluginSchedule { plugin, task, schedule } in declared {
            match parse_schedule(&task, &schedule) {
                Ok(item) => chosen.add(Arc::new(item), || format!("plugin {plugin}")),
                Err(error) => {
                    let event = Event::PluginScheduleRefused { plugin, task: task.clone(), reason: error.to_string() };
                    self.say_once(&mut said, (task, schedule), event);
                }
            }
        }
        for (identifier, kept, left_out) in chosen.conflicts {
            let event = Event::ScheduleOverridden { identifier: identifier.clone(), kept, left_out: left_out.clone() };
            self.say_once(&mut said, (identifier, left_out), event);
        }
        self.announced = said;
        chosen.items
    }

    fn say_once(&self, said: &mut BTreeSet<(String, String)>, what: (String, String), event: Event) {
        if !self.announced.contains(&what) {
            self.events.emit(event);
        }
        said.insert(what);
    }
}

/// One item per identifier, in the order in which they came.
#[derive(Default)]
struct Chosen {
    items: Vec<Arc<CronItem>>,
    origins: BTreeMap<String, String>,
    /// Identifier, the origin that counts, the one that does not.
    conflicts: Vec<(String, String, String)>,
}

impl Chosen {
    fn add(&mut self, item: Arc<CronItem>, origin: impl Fn() -> String) {
        match self.origins.get(&item.identifier) {
            Some(first) => self.conflicts.push((item.identifier.clone(), first.clone(), origin())),
            None => {
                self.origins.insert(item.identifier.clone(), origin());
                self.items.push(item);
            }
        }
    }
}

/// A source whose owner has gone does not change any more.
async fn next_change<T>(source: &mut watch::Receiver<T>) {
    if source.changed().await.is_err() {
        std::future::pending().await
    }
}
