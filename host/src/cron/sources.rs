//! All schedules of this host, from wherever they come, under one identifier each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    crontab_file::CrontabContents,
    snapshot::{InForce, OverriddenSchedule, PluginSchedule, RefusedSchedule},
};
use crate::{
    crontab::{CronItem, parse_schedule},
    events::{Event, Events},
};

/// The sources, and what was said about them.
#[derive(Debug)]
pub(super) struct Sources {
    file: watch::Receiver<CrontabContents>,
    given: Vec<Arc<CronItem>>,
    plugins: watch::Receiver<Vec<PluginSchedule>>,
    events: Events,
    /// Schedules that do not count, by their identifier and where they are from: each is spoken of once.
    announced: BTreeSet<(String, String)>,
}

impl Sources {
    pub(super) fn new(
        file: watch::Receiver<CrontabContents>,
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

    /// The schedules in force as of now. Where two have one identifier, it is the crontab's, so that whoever runs the host
    /// can replace what a plugin declares; then the program's; then that of the plugin whose name comes first.
    pub(super) fn current(&mut self) -> InForce {
        let mut chosen = Chosen::default();
        let CrontabContents { items, refused: crontab_refused } = self.file.borrow_and_update().clone();
        for item in items {
            chosen.add(item, || "the crontab".to_owned());
        }
        for item in &self.given {
            chosen.add(Arc::clone(item), || "the program's settings".to_owned());
        }
        let mut declared = self.plugins.borrow_and_update().clone();
        // The order of one task's schedules is the plugin's.
        declared.sort_by(|one, other| (&one.plugin, &one.task).cmp(&(&other.plugin, &other.task)));
        let (mut said, mut refused) = (BTreeSet::new(), Vec::new());
        for PluginSchedule { plugin, task, schedule } in declared {
            match parse_schedule(&task, &schedule) {
                Ok(item) => chosen.add(Arc::new(item), || format!("plugin {plugin}")),
                Err(error) => {
                    let reason = error.to_string();
                    let (of_task, why) = (task.clone(), reason.clone());
                    let event = Event::PluginScheduleRefused { plugin: plugin.clone(), task: of_task, reason: why };
                    self.say_once(&mut said, (task.clone(), schedule.clone()), event);
                    refused.push(RefusedSchedule { schedule: PluginSchedule { plugin, task, schedule }, reason });
                }
            }
        }
        for OverriddenSchedule { identifier, kept, left_out } in &chosen.overridden {
            let what = (identifier.clone(), left_out.clone());
            let (identifier, kept, left_out) = (identifier.clone(), kept.clone(), left_out.clone());
            self.say_once(&mut said, what, Event::ScheduleOverridden { identifier, kept, left_out });
        }
        self.announced = said;
        let Chosen { items, origins, overridden, .. } = chosen;
        InForce { items, origins, overridden, refused, crontab_refused }
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
    /// Where they are from, in the same order.
    origins: Vec<String>,
    /// The place of each identifier.
    places: HashMap<String, usize>,
    overridden: Vec<OverriddenSchedule>,
}

impl Chosen {
    fn add(&mut self, item: Arc<CronItem>, origin: impl Fn() -> String) {
        let identifier = item.identifier.clone();
        match self.places.get(&identifier) {
            Some(place) => {
                let (kept, left_out) = (self.origins[*place].clone(), origin());
                self.overridden.push(OverriddenSchedule { identifier, kept, left_out });
            }
            None => {
                self.places.insert(identifier, self.items.len());
                self.items.push(item);
                self.origins.push(origin());
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
