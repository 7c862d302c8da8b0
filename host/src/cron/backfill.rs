//! Computes the missed minutes for `fill`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    clock::{ceil, floor, minutes_after},
    due::Entry,
};
use crate::{crontab::CronItem, queue::KnownCrontab};

/// So many minutes are looked through at once: enough to be quick, few enough to be held.
const WINDOW: i64 = 24 * 60;

/// A schedule that was not carried out at a minute.
#[derive(Debug, Clone)]
pub(super) struct Missed {
    pub(super) item: Arc<CronItem>,
    pub(super) known: KnownCrontab,
}

/// The minutes that were missed, in their order, with the schedules in theirs. A schedule that nobody knows has missed none.
pub(super) fn missed(
    entry: &Entry,
    known: &HashMap<String, KnownCrontab>,
) -> impl Iterator<Item = (Timestamp, Vec<Missed>)> {
    let wanting: Vec<(Timestamp, Missed)> = entry
        .items
        .iter()
        .filter(|item| !item.options.backfill.is_zero())
        .filter_map(|item| {
            let known = *known.get(&item.identifier)?;
            let fill = SignedDuration::try_from(item.options.backfill).unwrap_or(SignedDuration::MAX);
            let oldest = ceil(entry.at.checked_sub(fill).unwrap_or(Timestamp::MIN));
            let first =
                known.last_execution.map_or_else(|| ceil(known.known_since), |last| minutes_after(floor(last), 1));
            Some((oldest.max(first), Missed { item: Arc::clone(item), known }))
        })
        .collect();
    let mut from = wanting.iter().map(|(first, _)| *first).min().unwrap_or(entry.until);
    let until = entry.until;
    let windows = std::iter::from_fn(move || {
        let window = (from < until).then(|| (from, minutes_after(from, WINDOW).min(until)))?;
        from = window.1;
        Some(window)
    });
    windows.flat_map(move |(from, to)| {
        let mut minutes: BTreeMap<Timestamp, Vec<Missed>> = BTreeMap::new();
        for (first, missed) in &wanting {
            for minute in missed.item.times(from.max(*first), to) {
                minutes.entry(minute).or_default().push(missed.clone());
            }
        }
        minutes
    })
}
