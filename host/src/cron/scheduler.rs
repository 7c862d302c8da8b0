//! Carries the schedules forward with the clock: what becomes due is put into a queue. It never waits for the database.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::{
    clock::{Clock, ceil, floor, minutes_after},
    due::{DueWork, Entry, GivenUp, LONGEST_WAIT, Reason, Tick, Work, oldest_kept},
    snapshot::{CronHandle, InForce},
    sources::Sources,
};
use crate::{
    crontab::CronItem,
    events::{Event, Events},
};

/// There may be many items, and many minutes that went by: after so many items, others get their turn.
const ITEMS_AT_ONCE: usize = 100;

/// The schedules in force, and how far they have come.
#[derive(Debug)]
pub(super) struct Scheduler {
    sources: Sources,
    clock: Arc<dyn Clock>,
    due: Arc<DueWork>,
    events: Events,
    /// Read by others, written by nobody else.
    in_force: Arc<ArcSwap<InForce>>,
    /// The next minute that is to come. All before it have been dealt with.
    next: Timestamp,
}

impl Scheduler {
    pub(super) fn new(sources: Sources, handle: &CronHandle, events: Events) -> Self {
        let CronHandle { in_force, due, clock } = handle.clone();
        Self { sources, clock, due, events, in_force, next: Timestamp::MIN }
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self) {
        self.start();
        loop {
            tokio::select! {
                () = self.clock.sleep_until(self.next) => self.wake().await,
                () = self.sources.changed() => self.change().await,
            }
        }
    }

    /// The minute in which the host starts is over, unless it starts on the dot; only `fill` reaches behind it.
    fn start(&mut self) {
        let start = self.clock.now();
        let in_force = self.sources.current();
        let items = in_force.items.clone();
        self.in_force.store(Arc::new(in_force));
        self.next = ceil(start);
        self.events.emit(Event::CronStarting { start, items: items.len() });
        self.enter(items, start, Reason::Start);
    }

    async fn wake(&mut self) {
        let (current, expected) = (floor(self.clock.now()), self.next);
        if current < expected {
            self.events.emit(Event::CronPrematureTimer { current, expected });
        } else if current > expected {
            self.events.emit(Event::CronOverdueTimer { current, expected });
        }
        self.collect().await;
    }

    /// Other schedules are in force from the next minute on; for those before it, which may only have been noticed late, the
    /// old ones were.
    async fn change(&mut self) {
        self.collect().await;
        let in_force = self.sources.current();
        let (old, items) = (self.in_force.load_full(), in_force.items.clone());
        self.in_force.store(Arc::new(in_force));
        let identifiers =
            |items: &[Arc<CronItem>]| -> HashSet<String> { items.iter().map(|item| item.identifier.clone()).collect() };
        let (before, after) = (identifiers(&old.items), identifiers(&items));
        let added: Vec<Arc<CronItem>> =
            items.iter().filter(|item| !before.contains(&item.identifier)).cloned().collect();
        let gone = old.items.iter().filter(|item| !after.contains(&item.identifier));
        let removed: Vec<String> = gone.map(|item| item.identifier.clone()).collect();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        self.events.emit(Event::SchedulesChanged {
            added: added.iter().map(|item| item.identifier.clone()).collect(),
            removed,
            items: items.len(),
        });
        if !added.is_empty() {
            self.enter(added, self.clock.now(), Reason::Change);
        }
    }

    fn enter(&self, items: Vec<Arc<CronItem>>, at: Timestamp, reason: Reason) {
        self.due.push(Work::Entry(Entry { items, at, until: self.next, reason }));
    }

    /// Every minute that has come becomes a tick, also those that went by while the machine slept or its clock was wrong.
    async fn collect(&mut self) {
        let now = self.clock.now();
        let minute = floor(now);
        self.give_up_before(oldest_kept(minute), now);
        let until = minutes_after(minute, 1);
        let mut ticks: BTreeMap<Timestamp, Vec<Arc<CronItem>>> = BTreeMap::new();
        let in_force = self.in_force.load_full();
        for (place, item) in in_force.items.iter().enumerate() {
            for minute in item.times(self.next, until) {
                ticks.entry(minute).or_default().push(Arc::clone(item));
            }
            if place % ITEMS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        for (minute, items) in ticks {
            self.due.push(Work::Tick(Tick { minute, items }));
        }
        self.next = self.next.max(until);
        // A clock that was far ahead has been set right. What it has stored keeps the database from firing again until then,
        // but the rest need not wait as long.
        if self.next > minutes_after(minute, LONGEST_WAIT) {
            self.next = ceil(now);
        }
    }

    fn give_up_before(&mut self, oldest: Timestamp, now: Timestamp) {
        let entry =
            || Entry { items: self.in_force.load().items.clone(), at: now, until: oldest, reason: Reason::GivenUp };
        let mut given_up = self.due.give_up_before(oldest, entry);
        if self.next < oldest {
            if given_up == GivenUp::Nothing {
                self.due.push(Work::Entry(entry()));
                given_up = GivenUp::From(self.next);
            }
            self.next = oldest;
        }
        if let GivenUp::From(from) = given_up {
            self.events.emit(Event::CronTicksGivenUp { from, until: oldest });
        }
    }
}
