//! Stores due ticks in the database, in order, with any number of retries.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use rand::Rng;
use tracing::{debug, warn};

use super::{
    ServedTasks, backfill,
    due::{DueWork, Entry, Reason, Tick, Work},
    job::job_of,
};
use crate::{
    crontab::CronItem,
    events::{BackfilledItem, Event, Events, RefusedTick},
    queue::{CronJob, Database, QueueError, Session},
    trouble::Trouble,
};

const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Recorder {
    database: Database,
    due: Arc<DueWork>,
    events: Events,
    trouble: Trouble,
    /// The wait before the next try, while tries fail.
    wait: Option<Duration>,
    /// The minute whose ticks were announced: each is announced once, however many tries it takes.
    announced: Option<Timestamp>,
    served: Arc<dyn ServedTasks>,
    /// The tasks of schedules that were looked for in the database.
    looked_for: BTreeSet<String>,
}

impl Recorder {
    pub(super) fn new(database: Database, due: Arc<DueWork>, events: Events, served: Arc<dyn ServedTasks>) -> Self {
        let trouble = Trouble::new("add the jobs of schedules", database.clone(), events.clone());
        Self { database, due, events, trouble, wait: None, announced: None, served, looked_for: BTreeSet::new() }
    }

    /// Goes on for ever. It may be dropped at any time: what was sent is stored once or not at all.
    pub(super) async fn run(&mut self) {
        loop {
            let work = self.due.front().await;
            match self.store(&work).await {
                Ok(()) => self.due.done(&work),
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    async fn store(&mut self, work: &Work) -> Result<(), QueueError> {
        let session = self.database.session().await?;
        match work {
            Work::Entry(entry) => self.store_entry(&session, entry).await?,
            Work::Tick(tick) => self.store_tick(&session, tick).await?,
        }
        self.succeeded();
        Ok(())
    }

    async fn store_entry(&mut self, session: &Session, entry: &Entry) -> Result<(), QueueError> {
        self.warn_of_unknown_tasks(session, &entry.items).await;
        let identifiers: Vec<&str> = entry.items.iter().map(|item| item.identifier.as_str()).collect();
        let known = session.known_crontabs(&identifiers).await?;
        let unknown: Vec<&str> =
            identifiers.into_iter().filter(|identifier| !known.contains_key(*identifier)).collect();
        if !unknown.is_empty() {
            session.register_crontabs(&unknown, entry.at).await?;
        }
        for (minute, missed) in backfill::missed(entry, &known) {
            let items = missed.iter().map(|missed| Arc::clone(&missed.item));
            let jobs = self.jobs(items, minute, true);
            let described = |missed: &backfill::Missed| {
                let job = jobs.iter().find(|job| job.identifier == missed.item.identifier)?;
                Some(BackfilledItem { job: job.clone(), known: missed.known })
            };
            let items = missed.iter().filter_map(described).collect();
            self.events.emit(Event::CronBackfill { timestamp: minute, items });
            self.add(session, minute, &jobs).await?;
            self.succeeded();
        }
        if entry.reason == Reason::Start {
            self.events.emit(Event::CronStarted { start: entry.at, items: entry.items.len() });
        }
        Ok(())
    }

    async fn store_tick(&mut self, session: &Session, tick: &Tick) -> Result<(), QueueError> {
        let jobs: Arc<[CronJob]> = self.jobs(tick.items.iter().cloned(), tick.minute, false).into();
        if self.announced != Some(tick.minute) {
            self.announced = Some(tick.minute);
            self.events.emit(Event::CronSchedule { timestamp: tick.minute, jobs: Arc::clone(&jobs) });
        }
        let added = self.add(session, tick.minute, &jobs).await?;
        self.events.emit(Event::CronScheduled { timestamp: tick.minute, jobs, added });
        Ok(())
    }

    /// Warns of tasks that neither this host has nor any worker has registered: one warning for each, which is no news later.
    /// Where that cannot be found out, there is no warning, and the schedules are carried out all the same.
    async fn warn_of_unknown_tasks(&mut self, session: &Session, items: &[Arc<CronItem>]) {
        let served = self.served.names();
        let is_new = |task: &str| !served.iter().any(|name| name == task) && !self.looked_for.contains(task);
        let tasks: BTreeSet<&str> = items.iter().map(|item| item.task.as_str()).filter(|task| is_new(task)).collect();
        let tasks: Vec<&str> = tasks.into_iter().collect();
        if tasks.is_empty() {
            return;
        }
        match session.unknown_tasks(&tasks, &served).await {
            Ok(unknown) => {
                for task in unknown {
                    warn!(
                        event = "schedule_of_unknown_task",
                        task = task.name,
                        "a schedule is of an unknown task: {task}"
                    );
                }
                self.looked_for.extend(tasks.into_iter().map(str::to_owned));
            }
            Err(error) => debug!("could not look for unknown tasks among those of schedules: {}", error.reason()),
        }
    }

    fn jobs(&self, items: impl Iterator<Item = Arc<CronItem>>, minute: Timestamp, backfilled: bool) -> Vec<CronJob> {
        items.map(|item| job_of(&item, minute, backfilled)).collect()
    }

    /// Adds the jobs that nobody has added, and returns their identifiers. All in one statement; if that fails for what one of
    /// them is, one by one, so that it costs but itself its tick. In between, nothing is added twice: what one statement has
    /// stored, the next one finds.
    async fn add(&self, session: &Session, minute: Timestamp, jobs: &[CronJob]) -> Result<Vec<String>, QueueError> {
        match session.add_cron_jobs(minute, jobs).await {
            Err(error) if is_the_jobs_fault(&error) => {}
            answer => return answer,
        }
        let mut added = Vec::new();
        for job in jobs {
            match session.add_cron_jobs(minute, std::slice::from_ref(job)).await {
                Ok(identifiers) => added.extend(identifiers),
                Err(error) if is_the_jobs_fault(&error) => self.events.emit(Event::CronItemFailed(RefusedTick {
                    identifier: job.identifier.clone(),
                    task: job.job.identifier.clone(),
                    timestamp: minute,
                    reason: error.reason(),
                })),
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }

    /// 100 ms after the first failure, twice as long each time up to 10 s, give or take a half, so that many hosts do not come
    /// back in step.
    async fn wait_after(&mut self, error: &QueueError) {
        let nominal = self.wait.map_or(SHORTEST_WAIT, |before| (before * 2).min(LONGEST_WAIT));
        let retry_in = nominal.mul_f64(rand::rng().random_range(0.5..1.5));
        self.wait = Some(nominal);
        self.trouble.failed(error, retry_in);
        self.database.health().wait_until_back(retry_in).await;
    }

    fn succeeded(&mut self) {
        self.wait = None;
        self.trouble.succeeded();
    }
}

/// Whether it is of no use to try the job again. A schema that is not there, or that may not be used, is nobody's fault here:
/// that is mended some time, and until then what is due stays due.
fn is_the_jobs_fault(error: &QueueError) -> bool {
    // By class: 3F no schema, 42 no such table or function, or no right to it.
    let class = error.code().and_then(|code| code.code().get(..2));
    !error.is_temporary() && !matches!(class, None | Some("3F" | "42"))
}
