//! What the database allows in a job, checked before it is asked: a refused statement would cost a caller's transaction.

use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;

use super::NewJob;

/// What the tables allow of the names of tasks and queues, in characters.
const LONGEST_NAME: usize = 128;
const LONGEST_KEY: usize = 512;

/// 2000-01-01T00:00:00Z, from which the database counts.
const EPOCH: Duration = Duration::from_secs(946_684_800);
/// The distance from there of the first and the last moment that can be stored: in 4714 BC and 294276.
const FIRST: Duration = Duration::from_secs(211_813_488_000);
const LAST: Duration = Duration::from_secs(9_223_371_331_199);

impl NewJob {
    /// Whether it can be stored; if not, why, in a sentence for people.
    pub fn check(&self) -> Result<(), String> {
        check_name("task", &self.identifier)?;
        if let Some(queue) = &self.queue_name {
            check_name("queue", queue)?;
        }
        if let Some(key) = &self.job_key {
            let length = key.chars().count();
            if !(1..=LONGEST_KEY).contains(&length) {
                return Err(format!("a job key has 1 to {LONGEST_KEY} characters, and this one has {length}"));
            }
            check_text("job key", key)?;
        }
        self.flags.iter().try_for_each(|flag| check_text("flag", flag))?;
        if let Some(attempts) = self.max_attempts.filter(|attempts| *attempts < 1) {
            return Err(format!("a job has at least one attempt, and not {attempts}"));
        }
        if self.run_at.is_some_and(|time| !is_storable(time)) {
            return Err("run_at is a time that cannot be stored: it has to be between 4714 BC and 294276".to_owned());
        }
        match &self.payload {
            Some(payload) => serde_json::from_str::<IgnoredAny>(payload)
                .map(drop)
                .map_err(|error| format!("the payload is not JSON: {error}")),
            None => Ok(()),
        }
    }

    /// How much of a statement it fills, in bytes.
    pub(super) fn size(&self) -> usize {
        let texts = [self.payload.as_ref(), self.queue_name.as_ref(), self.job_key.as_ref(), Some(&self.identifier)];
        let texts = texts.into_iter().flatten().chain(&self.flags);
        texts.map(String::len).sum()
    }
}

fn check_name(of: &str, name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if length > LONGEST_NAME {
        return Err(format!("the name of a {of} has at most {LONGEST_NAME} characters, and {name:.40}… has {length}"));
    }
    check_text(of, name)
}

fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err(format!("the {what} {text:?} has a NUL character in it, which Postgres cannot store"));
    }
    Ok(())
}

/// A time as the database gives it back: in whole microseconds, without what is beyond them, counted from 2000.
pub(super) fn as_stored(time: SystemTime) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH + EPOCH;
    let whole = |distance: Duration| Duration::new(distance.as_secs(), distance.subsec_micros() * 1000);
    match time.duration_since(epoch) {
        Ok(after) => epoch + whole(after),
        Err(before) => epoch - whole(before.duration()),
    }
}

fn is_storable(time: SystemTime) -> bool {
    match time.duration_since(SystemTime::UNIX_EPOCH + EPOCH) {
        Ok(after) => after <= LAST,
        Err(before) => before.duration() <= FIRST,
    }
}
