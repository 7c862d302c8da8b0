//! The schedules of a host at one moment, as plain values that can be shown or sent.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};

use super::{clock::Clock, due::DueWork};
use crate::crontab::{CronItem, When};

/// So many fires of each schedule are told.
const FIRES: usize = 3;
/// A schedule that is a function is asked about each minute of this time.
const ASKED_AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// All schedules of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct CronSnapshot {
    /// Those in force.
    pub schedules: Vec<ScheduleSnapshot>,
    /// Those that another one with the same identifier goes before.
    pub overridden: Vec<OverriddenSchedule>,
    /// Those of plugins that cannot be used.
    pub refused: Vec<RefusedSchedule>,
    /// Why the crontab cannot be used as it is now; its last good version is in force.
    pub crontab_refused: Option<String>,
    /// Minutes in which schedules were due and whose jobs are not added yet.
    pub unstored: usize,
}

/// A schedule in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSnapshot {
    pub item: Arc<CronItem>,
    /// `the crontab`, `the program's settings` or `plugin NAME`.
    pub origin: String,
    /// The next fires, three at most. A schedule that is a function of the program is asked about the next 24 hours alone.
    pub next: Vec<Timestamp>,
}

/// A schedule that another one with the same identifier goes before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverriddenSchedule {
    pub identifier: String,
    /// The origin of the one in force.
    pub kept: String,
    /// The origin of this one.
    pub left_out: String,
}

/// A schedule of a plugin that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSchedule {
    pub schedule: PluginSchedule,
    pub reason: String,
}

/// A schedule that a plugin declares beside a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginSchedule {
    pub plugin: String,
    pub task: String,
    /// A line as in a crontab, without the task's name.
    pub schedule: String,
}

/// The schedules in force, each under one identifier, and what is not.
#[derive(Debug, Default)]
pub(super) struct InForce {
    pub(super) items: Vec<Arc<CronItem>>,
    /// Where the items are from, in the same order.
    pub(super) origins: Vec<String>,
    pub(super) overridden: Vec<OverriddenSchedule>,
    pub(super) refused: Vec<RefusedSchedule>,
    pub(super) crontab_refused: Option<String>,
}

/// Reads the schedules of a host while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CronHandle {
    pub(super) in_force: Arc<ArcSwap<InForce>>,
    pub(super) due: Arc<DueWork>,
    pub(super) clock: Arc<dyn Clock>,
}

impl CronHandle {
    /// The schedules now. Empty before the host begins to work.
    pub fn snapshot(&self) -> CronSnapshot {
        let (in_force, now) = (self.in_force.load(), self.clock.now());
        let schedule = |(item, origin): (&Arc<CronItem>, &String)| ScheduleSnapshot {
            item: Arc::clone(item),
            origin: origin.clone(),
            next: next_fires(item, now),
        };
        CronSnapshot {
            schedules: in_force.items.iter().zip(&in_force.origins).map(schedule).collect(),
            overridden: in_force.overridden.clone(),
            refused: in_force.refused.clone(),
            crontab_refused: in_force.crontab_refused.clone(),
            unstored: self.due.ticks(),
        }
    }
}

fn next_fires(item: &CronItem, now: Timestamp) -> Vec<Timestamp> {
    match item.when {
        When::Pattern(_) => {
            let next = |after: &Timestamp| item.next_after(*after);
            std::iter::successors(item.next_after(now), next).take(FIRES).collect()
        }
        When::Function(_) => {
            let until = now.checked_add(ASKED_AHEAD).unwrap_or(Timestamp::MAX);
            item.times(now, until).take(FIRES).collect()
        }
    }
}
