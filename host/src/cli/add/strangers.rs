//! Warns of jobs whose task nobody has registered yet: they wait for ever if the name is mistyped.

use std::collections::HashSet;

use super::super::note;
use crate::queue::{Database, NewJob, Session};

/// The most names that are warned of.
const SHOWN: usize = 10;
/// The most names that are remembered; a file with more tasks is checked no further.
const REMEMBERED: usize = 10_000;

/// The names that were asked for so far.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    asked: HashSet<String>,
    unknown: usize,
}

impl Strangers {
    /// Warns of the tasks of jobs that are about to be added, once for each name. Whatever goes wrong here goes wrong with the
    /// jobs themselves, or does not matter.
    pub(super) async fn warn(&mut self, database: &Database, jobs: &[NewJob], show: impl Fn(&str)) {
        let names: HashSet<&str> = jobs.iter().map(|job| job.identifier.as_str()).collect();
        let new: Vec<&str> = names.into_iter().filter(|name| !self.asked.contains(*name)).collect();
        if new.is_empty() || self.asked.len() + new.len() > REMEMBERED {
            return;
        }
        if let Ok(session) = database.session().await {
            self.warn_of(&session, &new, show).await;
        }
    }

    async fn warn_of(&mut self, session: &Session, names: &[&str], show: impl Fn(&str)) {
        let Ok(mut unknown) = session.unknown_tasks(names, &[]).await else { return };
        self.asked.extend(names.iter().map(|name| (*name).to_owned()));
        unknown.sort_by(|one, other| one.name.cmp(&other.name));
        for task in unknown {
            self.unknown += 1;
            match self.unknown {
                1..=SHOWN => show(&format!("warning: {task}")),
                n if n == SHOWN + 1 => show("warning: and there are more such tasks"),
                _ => {}
            }
        }
    }
}

/// The same for a single job.
pub(super) async fn warn(session: &Session, task: &str) {
    Strangers::default().warn_of(session, &[task], |warning| note(warning)).await;
}
