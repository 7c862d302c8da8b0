//! Says which jobs were changed and which were not.

use std::time::SystemTime;

use serde_json::json;

use super::{
    super::{CliError, Ending, moment::age, note, print},
    json::JsonJob,
    json_output::JsonOutput,
};
use crate::{admin::Left, queue::StoredJob};

/// How many jobs are named one by one, unless they were so by the user.
const NAMED: usize = 20;

/// What became of the jobs so far. Of those that were found by a filter, no more is kept than is said.
#[derive(Debug)]
pub(super) struct Report {
    /// Such as `completed`.
    done: &'static str,
    /// The jobs were found by what they have in common, and not named one by one.
    found: bool,
    json: Option<JsonOutput>,
    changed: usize,
    /// The first of them.
    names: Vec<String>,
    /// Those that were left alone, as far as each is said.
    left: Vec<(i64, Left)>,
    /// How many more were.
    more_left: usize,
}

impl Report {
    pub(super) fn begin(done: &'static str, found: bool, as_json: bool) -> Result<Self, CliError> {
        let json = as_json.then(|| JsonOutput::begin(&format!("{{\"{done}\": ["))).transpose()?;
        Ok(Self { done, found, json, changed: 0, names: Vec::new(), left: Vec::new(), more_left: 0 })
    }

    /// These jobs were changed together. All of them count before the first is printed, which may fail.
    pub(super) fn changed(&mut self, jobs: &[StoredJob]) -> Result<(), CliError> {
        self.changed += jobs.len();
        for job in jobs {
            match &mut self.json {
                Some(json) => json.element(&JsonJob::of(job))?,
                None if !self.found => print(&format!("{} {}\n", self.done, name(job)))?,
                None if self.changed <= NAMED => self.names.push(name(job)),
                None => self.names.clear(),
            }
        }
        Ok(())
    }

    pub(super) fn left(&mut self, id: i64, why: Left) {
        if self.found && self.json.is_none() && self.left.len() == NAMED {
            self.more_left += 1;
        } else {
            self.left.push((id, why));
        }
    }

    /// It ends early: says what is done all the same.
    pub(super) fn interrupted(mut self) {
        let _ = self.json.as_mut().map(JsonOutput::flush);
        if self.changed > 0 {
            note(format_args!("{} {} before this:", self.done, jobs(self.changed)));
        }
    }

    pub(super) fn end(mut self) -> Result<Ending, CliError> {
        let told = match self.json.take() {
            Some(json) => self.end_document(json),
            None => self.tell(),
        };
        let done = if self.changed > 0 { format!("{} {}", self.done, jobs(self.changed)) } else { String::new() };
        told.map_err(CliError::after_change(done))?;
        let complete = if self.found { self.changed > 0 } else { self.left.is_empty() };
        Ok(if complete { Ending::Success } else { Ending::Refusals })
    }

    fn end_document(&self, mut json: JsonOutput) -> Result<(), CliError> {
        json.end_list("], \"left_alone\": [")?;
        for (id, why) in &self.left {
            json.element(&json!({ "id": id, "reason": sentence(why, *id) }))?;
        }
        json.end_list("]}\n")?;
        json.flush()
    }

    fn tell(&self) -> Result<(), CliError> {
        if self.found && self.changed == 0 && self.left.is_empty() {
            return print("there are no such jobs: nothing was changed\n");
        }
        if self.found && self.changed > NAMED {
            print(&format!("{} {} jobs\n", self.done, self.changed))?;
        }
        for name in &self.names {
            print(&format!("{} {name}\n", self.done))?;
        }
        for (id, why) in &self.left {
            note(format_args!("job {id} {}", sentence(why, *id)));
        }
        match self.more_left {
            0 => {}
            1 => note("1 more was left alone"),
            more => note(format_args!("{more} more were left alone")),
        }
        Ok(())
    }
}

fn sentence(why: &Left, id: i64) -> String {
    match why {
        Left::Gone => "does not exist; it may be done already".to_owned(),
        Left::Held { worker, since } => format!("{} and was left alone", holder(worker.as_deref(), *since)),
        Left::Freed => "was being run and was left alone; it is not any more".to_owned(),
        Left::Spent => format!("has failed for good and was left alone: `taskbay jobs retry {id}` runs it again"),
        Left::Refused(reason) => format!("was refused by the database: {reason}"),
        Left::Untried => {
            format!(
                "has not been tried yet and was left alone: `taskbay jobs reschedule {id} --run-at now` runs it now"
            )
        }
    }
}

/// `is being run by pool-… since 3s`
pub(super) fn holder(worker: Option<&str>, since: Option<SystemTime>) -> String {
    let since = since.map_or_else(String::new, |since| format!(" since {}", age(since)));
    format!("is being run by {}{since}", worker.unwrap_or("somebody"))
}

pub(super) fn name(job: &StoredJob) -> String {
    format!("job {} ({})", job.id, job.task_identifier)
}

fn jobs(count: usize) -> String {
    format!("{count} job{}", if count == 1 { "" } else { "s" })
}
