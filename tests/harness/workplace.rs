//! Where most tests work: a database with the schema, a tasks folder with `misbehaving`, and the ledger of its `echo` task.

use super::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
    wait::until,
};

/// Enough jobs to show a task to be short.
const ROUND: usize = 400;

/// With few jobs at once, none waits long for the others, so that short ones are short on a slow machine as well.
pub const FEW_SLOTS: [&str; 2] = ["--jobs", "2"];

pub struct Workplace {
    pub database: TestDatabase,
    pub folder: tempfile::TempDir,
    pub ledger: Ledger,
}

impl Workplace {
    pub async fn new() -> Self {
        Self::on(TestDatabase::installed().await)
    }

    pub fn on(database: TestDatabase) -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        Self { database, folder, ledger: Ledger::new() }
    }

    /// `taskbay run`, with a log of its decisions.
    pub fn command(&self) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path()).ledger(&self.ledger)
    }

    /// Adds `echo` jobs in one transaction and gives their ids. Each payload has these fields and the job's number, from 1.
    pub async fn add_many(&self, count: usize, payload: &str) -> Vec<i64> {
        let sql = format!(
            "select coalesce(array_agg(job.id order by job.id), '{{}}') from graphile_worker.add_jobs(array(
               select row('echo', '{payload}'::jsonb || jsonb_build_object('n', n), null, now(), 25, null, 0, null)
                 ::graphile_worker.job_spec
               from generate_series(1, {count}) as n)) as job"
        );
        self.database.client().await.query_one(&sql, &[]).await.expect("add jobs").get(0)
    }

    /// Counts from now on how often the row of a job is updated, as it is when the job is marked.
    pub async fn count_marks(&self) {
        // A sequence shows what transactions have done that are still open or were rolled back.
        self.database
            .execute(
                "create sequence public.marks;
                 select nextval('public.marks');
                 create function public.count_mark() returns trigger language plpgsql as $$
                 begin perform nextval('public.marks'); return null; end $$;
                 create trigger count_mark after update on graphile_worker._private_jobs
                 for each row execute function public.count_mark()",
            )
            .await;
    }

    /// How many have been counted, and one.
    pub async fn marks(&self) -> i64 {
        self.database.id_of("select last_value from public.marks", &[]).await
    }

    /// Works rounds of short jobs until the host takes one by the express lane: it measures jobs, and on a busy machine even
    /// an empty one takes long, the more so the more run at once: see [`FEW_SLOTS`]. Needs [`Self::count_marks`], and a queue
    /// without jobs.
    pub async fn wait_until_express(&self) {
        let mut rounds = 0;
        until("most jobs of a round are not marked", async || {
            let marks = self.marks().await;
            self.add_many(ROUND, "{}").await;
            self.database.wait_until_no_jobs().await;
            let marked = self.marks().await - marks;
            rounds += 1;
            if marked < ROUND as i64 / 2 { Ok(()) } else { Err((rounds, marked)) }
        })
        .await;
    }
}
