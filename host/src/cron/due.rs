//! The queue of due ticks that are not stored yet, in order. It holds up to a day of ticks while the database is away.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::clock::minutes_after;
use crate::crontab::CronItem;

/// Ticks that have waited for longer than this are given up, but for what `fill` makes up for. It bounds the memory that they
/// take, and what falls upon the workers when the database is back.
pub(super) const LONGEST_WAIT: i64 = 24 * 60;

/// Work for the recorder.
#[derive(Debug)]
pub(super) enum Work {
    Entry(Entry),
    Tick(Tick),
}

/// Schedules have come into force: those that nobody knows are registered, and for the others `fill` makes up for the time in
/// which they were not.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) items: Vec<Arc<CronItem>>,
    /// When that was.
    pub(super) at: Timestamp,
    /// The first minute that has a tick.
    pub(super) until: Timestamp,
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The host starts.
    Start,
    /// They were not there before.
    Change,
    /// Their ticks were given up.
    GivenUp,
}

/// A minute has come at which these are due.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) minute: Timestamp,
    pub(super) items: Vec<Arc<CronItem>>,
}

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    Nothing,
    /// Ticks from this minute on.
    From(Timestamp),
    /// Ticks that follow upon others which were given up, and which are not made up for yet.
    More,
}

/// The queue between the scheduler, which never waits, and the recorder, which may have to.
#[derive(Debug, Default)]
pub(super) struct DueWork {
    queue: Mutex<VecDeque<Arc<Work>>>,
    more: Notify,
}

impl DueWork {
    pub(super) fn push(&self, work: Work) {
        self.queue().push_back(Arc::new(work));
        self.more.notify_one();
    }

    /// Gives up the ticks before a minute, if there are any; their place in the order is taken by what `fill` makes up for.
    pub(super) fn give_up_before(&self, minute: Timestamp, instead: impl FnOnce() -> Entry) -> GivenUp {
        let is_old = |work: &Arc<Work>| matches!(&**work, Work::Tick(tick) if tick.minute < minute);
        let stands_in = |work: &Arc<Work>| matches!(&**work, Work::Entry(entry) if entry.reason == Reason::GivenUp);
        let mut queue = self.queue();
        let Some(place) = queue.iter().position(is_old) else { return GivenUp::Nothing };
        let Work::Tick(Tick { minute: first, .. }) = *queue[place] else { return GivenUp::Nothing };
        let kept_before = queue.iter().take(place).filter(|work| !stands_in(work)).count();
        let more = queue.iter().any(stands_in);
        queue.retain(|work| !is_old(work) && !stands_in(work));
        queue.insert(kept_before, Arc::new(Work::Entry(instead())));
        if more { GivenUp::More } else { GivenUp::From(first) }
    }

    /// How many minutes are to be stored.
    pub(super) fn ticks(&self) -> usize {
        self.queue().iter().filter(|work| matches!(***work, Work::Tick(_))).count()
    }

    /// What is to be stored next; it stays until it is [`DueWork::done`].
    pub(super) async fn front(&self) -> Arc<Work> {
        loop {
            if let Some(front) = self.queue().front() {
                return Arc::clone(front);
            }
            self.more.notified().await;
        }
    }

    /// Takes work away that was stored, unless it was given up in the meantime.
    pub(super) fn done(&self, work: &Arc<Work>) {
        let mut queue = self.queue();
        if queue.front().is_some_and(|front| Arc::ptr_eq(front, work)) {
            queue.pop_front();
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Work>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first minute whose tick is not given up at this one.
pub(super) fn oldest_kept(minute: Timestamp) -> Timestamp {
    minutes_after(minute, -LONGEST_WAIT)
}
