//! Brings the rows that adding many jobs gives into the order in which the jobs were asked for.
//!
//! A row tells its request by its key, or else by all that was asked for. Requests that are alike in everything are
//! interchangeable, and so are their rows.

use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};

use serde::de::IgnoredAny;

use super::{AddedJob, NewJob, job_rules::as_stored};

/// The requests, and the rows found for them so far.
#[derive(Debug)]
pub(super) struct RequestOrder<'a> {
    new: &'a [NewJob],
    found: Vec<Option<AddedJob>>,
}

/// What tells a job without a key from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content<'a> {
    task: &'a str,
    payload: &'a str,
    queue_name: Option<&'a str>,
    /// `None`: at once, which is a time that only the database knows.
    run_at: Option<SystemTime>,
    max_attempts: i16,
    priority: i16,
    flags: BTreeSet<String>,
}

/// Whether each row is what the request in its place asked for. Then no other order can be the right one, but for requests
/// that are alike.
pub(super) fn is_in_order(new: &[NewJob], rows: &[AddedJob]) -> bool {
    let fits = |(new, row): (&NewJob, &AddedJob)| match (&new.job_key, &row.key) {
        (Some(asked), Some(key)) => asked == key,
        (None, None) => Content::of_request(new).fits(&Content::of_row(row)),
        _ => false,
    };
    new.len() == rows.len() && new.iter().zip(rows).all(fits)
}

impl<'a> RequestOrder<'a> {
    pub(super) fn new(new: &'a [NewJob]) -> Self {
        Self { new, found: new.iter().map(|_| None).collect() }
    }

    /// The places that have no row yet.
    pub(super) fn missing(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.found.iter().enumerate().filter(|(_, row)| row.is_none()).map(|(place, _)| place)
    }

    /// Finds the request of each row.
    pub(super) fn assign(&mut self, rows: Vec<AddedJob>) {
        let places = self.places_of(&rows);
        let mut strangers = Vec::new();
        for (row, place) in rows.into_iter().zip(places) {
            match place {
                Some(place) => self.found[place] = Some(row),
                None => strangers.push(row),
            }
        }
        // A trigger of the application's may have changed them. Then at least the task should be the right one.
        for row in strangers {
            let unkeyed = |place: &usize| self.new[*place].job_key.is_none();
            let same_task = self.missing().filter(unkeyed).find(|place| self.new[*place].identifier == row.task);
            if let Some(place) = same_task.or_else(|| self.missing().find(unkeyed)) {
                self.found[place] = Some(row);
            }
        }
    }

    /// The rows in the order of their requests. There is one for each unless some are [`missing`](Self::missing).
    pub(super) fn finish(self) -> Vec<AddedJob> {
        self.found.into_iter().flatten().collect()
    }

    fn places_of<'b>(&'b self, rows: &'b [AddedJob]) -> Vec<Option<usize>> {
        let mut by_key: HashMap<&str, usize> = HashMap::new();
        // The places of equal requests, the first one last.
        let mut by_content: HashMap<Content<'b>, Vec<usize>> = HashMap::new();
        for place in self.missing().rev() {
            let job = &self.new[place];
            match &job.job_key {
                Some(key) => drop(by_key.insert(key, place)),
                None => by_content.entry(Content::of_request(job)).or_default().push(place),
            }
        }
        let place_of = |row: &'b AddedJob| match &row.key {
            Some(key) => by_key.get(key.as_str()).copied(),
            None => {
                let asked_for_this_time = Content::of_row(row);
                let at_once = Content { run_at: None, ..asked_for_this_time.clone() };
                let mut take = |content: &Content<'b>| by_content.get_mut(content)?.pop();
                take(&asked_for_this_time).or_else(|| take(&at_once))
            }
        };
        rows.iter().map(place_of).collect()
    }
}

impl<'a> Content<'a> {
    /// As a request, which may leave the time to the database.
    fn fits(&self, row: &Self) -> bool {
        let any_time = self.run_at.is_none() || self.run_at == row.run_at;
        any_time && Content { run_at: row.run_at, ..self.clone() } == *row
    }

    fn of_request(job: &'a NewJob) -> Self {
        Self {
            task: &job.identifier,
            payload: job.payload.as_deref().unwrap_or("{}"),
            queue_name: job.queue_name.as_deref(),
            run_at: job.run_at.map(as_stored),
            max_attempts: job.max_attempts.unwrap_or(25),
            priority: job.priority.unwrap_or(0),
            flags: job.flags.iter().cloned().collect(),
        }
    }

    fn of_row(row: &'a AddedJob) -> Self {
        let flags: Option<HashMap<String, IgnoredAny>> =
            row.flags.as_deref().and_then(|json| serde_json::from_str(json).ok());
        Self {
            task: &row.task,
            payload: &row.job.payload,
            queue_name: row.job.queue_name.as_deref(),
            run_at: Some(row.job.run_at),
            max_attempts: row.max_attempts,
            priority: row.priority,
            flags: flags.into_iter().flat_map(HashMap::into_keys).collect(),
        }
    }
}
