//! Claims that something cuts off because they pass many jobs that nobody here works: each of them begins where the last one ended.

use std::{collections::HashSet, sync::Arc};

use taskbay::queue::{ClaimedJob, Conditions, Database, DatabaseSettings, Job, NewJob, QueueError, Session, TaskIds};

use crate::harness::{
    budget::{self, Beyond, role_with_budget},
    postgres::TestDatabase,
};

const NOTHING: Conditions<'static> = Conditions { forbidden_flags: &[], now: None, left_out: &[] };

/// So many due jobs of another task stand before.
const FOREIGN: i32 = 20_000;
/// And a statement that reads more than so many is cancelled.
const BUDGET: i32 = 3_000;
/// Claims that are cancelled before that is known.
const CANCELLED: usize = 1;

struct Site {
    test: TestDatabase,
    database: Database,
    session: Session,
    task: Arc<TaskIds>,
}

impl Site {
    /// `run_at` says when the foreign job number `i` is due.
    async fn new(run_at: &str) -> Self {
        let test = TestDatabase::installed().await;
        let config = role_with_budget(&test, BUDGET, Beyond::Cancelled).await;
        let database = Database::new(DatabaseSettings::new(config, "graphile_worker")).unwrap();
        let session = database.session().await.unwrap();
        session.task_ids(&["mine", "other"]).await.unwrap();
        test.execute("insert into graphile_worker._private_job_queues (queue_name) values ('other')").await;
        let site = Self { task: Arc::new(session.task_ids(&["mine"]).await.unwrap()), session, database, test };
        site.add_foreign(run_at).await;
        site
    }

    async fn add_foreign(&self, run_at: &str) {
        let statement = format!(
            "insert into graphile_worker._private_jobs (task_id, run_at, job_queue_id)
             select task.id, {run_at}, case when i % 2 = 0 then queue.id end
             from graphile_worker._private_tasks as task, graphile_worker._private_job_queues as queue,
               generate_series(1, {FOREIGN}) as i
             where task.identifier = 'other' and queue.queue_name = 'other'"
        );
        self.test.execute(&statement).await;
    }

    /// A job of ours beside one of so many of them, from that one on.
    async fn add_ours(&self, each: i32, after: i64, queue: Option<&str>) {
        let statement = format!(
            "insert into graphile_worker._private_jobs (task_id, run_at, job_queue_id)
             select (select id from graphile_worker._private_tasks where identifier = 'mine'), job.run_at,
               (select id from graphile_worker._private_job_queues where queue_name = $1)
             from graphile_worker._private_jobs as job
             where job.id % {each} = 0 and job.id > {after}
             order by job.id"
        );
        let client = self.test.client().await;
        if let Some(queue) = queue {
            let make =
                "insert into graphile_worker._private_job_queues (queue_name) values ($1) on conflict do nothing";
            client.execute(make, &[&queue]).await.unwrap();
        }
        client.execute(&statement, &[&queue]).await.unwrap();
    }

    async fn ours(&self) -> HashSet<i64> {
        let sql = "select job.id from graphile_worker._private_jobs as job
                   join graphile_worker._private_tasks as task on task.id = job.task_id
                   where task.identifier = 'mine'";
        self.test.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Job>, QueueError> {
        self.session.get_jobs("w", &self.task, limit, NOTHING).await
    }

    async fn complete(&self, jobs: &[Job]) {
        let claims: Vec<ClaimedJob> = jobs.iter().map(ClaimedJob::of).collect();
        self.session.complete_jobs("w", &claims).await.unwrap();
    }

    /// Claims and completes until a claim brings nothing. Some of them may be cut off.
    async fn claim_all(&self, limit: usize) -> Vec<Job> {
        let (mut all, mut cut) = (Vec::new(), 0);
        loop {
            match self.claim(limit).await {
                Ok(jobs) if jobs.is_empty() => return all,
                Ok(jobs) => {
                    self.complete(&jobs).await;
                    all.extend(jobs);
                }
                Err(error) => {
                    cut += 1;
                    assert!(error.to_string().contains("reads too much"), "{error}");
                    assert!(cut <= CANCELLED, "each claim is cut off");
                }
            }
        }
    }

    async fn brings_all_of_ours(self, limit: usize) {
        let expected = self.ours().await;
        assert!(!expected.is_empty());
        let claimed: Vec<i64> = self.claim_all(limit).await.iter().map(|job| job.id).collect();
        assert_eq!(claimed.len(), expected.len(), "none is claimed twice");
        assert_eq!(claimed.into_iter().collect::<HashSet<i64>>(), expected);
        self.end().await;
    }

    async fn end(self) {
        let Self { test, database, session, .. } = self;
        drop((session, database));
        budget::remove(&test).await;
    }
}

/// Each at a time of its own.
const SPREAD: &str = "now() - interval '1 day' + i * interval '1 millisecond'";
/// All at once.
const CROWD: &str = "now() - interval '1 day'";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_many_others_is_claimed_although_claims_are_cut_off() {
    for queue in [None, Some("ours")] {
        let site = Site::new(SPREAD).await;
        site.add_ours(FOREIGN, 0, queue).await;
        site.brings_all_of_ours(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_many_others_of_the_same_moment_is_claimed_although_claims_are_cut_off() {
    for queue in [None, Some("ours")] {
        let site = Site::new(CROWD).await;
        site.add_ours(FOREIGN, 0, queue).await;
        site.brings_all_of_ours(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_among_many_others_are_all_claimed_although_claims_are_cut_off() {
    // Of several moments with many jobs each, and several priorities.
    for run_at in [SPREAD, CROWD, "now() - interval '1 day' + (i / 6000) * interval '1 minute'"] {
        let site = Site::new(run_at).await;
        let spread = "update graphile_worker._private_jobs set priority = (id * 5 / 20000)::int2 - 2";
        site.test.execute(spread).await;
        site.add_ours(100, 0, None).await;
        site.brings_all_of_ours(7).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_queue_keep_their_order_although_claims_are_cut_off() {
    let site = Site::new(SPREAD).await;
    site.add_ours(500, 10_000, Some("ours")).await;
    let number = site.ours().await.len();
    site.claim(1).await.unwrap_err();
    let first = site.claim(1).await.unwrap();
    // Those that are next stand behind many others, and this one does not.
    site.test.database().add_job(&NewJob::new("mine").queue("ours")).await.unwrap();
    site.complete(&first).await;
    let claimed = site.claim_all(10).await;
    assert_eq!(claimed.len(), number, "{claimed:?}");
    assert!(claimed.is_sorted_by_key(|job| (job.run_at, job.id)), "{claimed:?}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_claim_of_the_express_lane_was_cut_off_the_marked_one_finds_the_job() {
    let site = Site::new(SPREAD).await;
    site.add_ours(FOREIGN, 0, None).await;
    let express = site.database.session().await.unwrap();
    express.lock_jobs(&site.task, 10, NOTHING).await.unwrap_err();
    assert_eq!(site.claim(10).await.unwrap().len(), 1, "at once");
    // And from then on express has nothing to pass.
    let new = site.test.database().add_job(&NewJob::new("mine")).await.unwrap().id;
    let second = site.database.session().await.unwrap();
    let found = second.lock_jobs(&site.task, 10, NOTHING).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [new]);
    drop((express, second));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_turns_up_behind_is_found_by_a_later_lap_although_claims_are_cut_off() {
    let site = Site::new(SPREAD).await;
    assert!(site.claim_all(10).await.is_empty());
    let first = "insert into graphile_worker._private_jobs (task_id, run_at)
                 select id, now() - interval '2 days' from graphile_worker._private_tasks where identifier = 'mine'";
    site.test.execute(first).await;
    while site.claim_all(10).await.is_empty() {
        let rest = site.database.next_full_scan(&site.task, NOTHING).expect("it has not seen everything");
        // Nothing will happen until then.
        tokio::time::sleep(rest).await;
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_job_does_not_wait_for_those_behind_many_others_although_claims_are_cut_off() {
    let site = Site::new(SPREAD).await;
    site.add_ours(20, 10_000, None).await;
    site.claim(1).await.unwrap_err();
    assert_eq!(site.claim(1).await.unwrap().len(), 1);
    // The lap has hundreds of jobs to go.
    let mut urgent = NewJob::new("mine");
    urgent.priority = Some(-5);
    let new = site.test.database().add_job(&urgent).await.unwrap().id;
    let mut claims = 0;
    while !site.claim(1000).await.unwrap().iter().any(|job| job.id == new) {
        claims += 1;
        assert!(claims <= 3, "it waits");
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_claimed_is_told_apart_although_claims_are_cut_off() {
    let site = Site::new(SPREAD).await;
    site.add_ours(2_000, 0, None).await;
    let ours = site.ours().await;
    let bad = *ours.iter().min().unwrap();
    let trigger = format!(
        "create function refuse() returns trigger language plpgsql as $$
         begin if new.id = {bad} then raise 'not this one'; end if; return new; end $$;
         create trigger refuse before update on graphile_worker._private_jobs for each row execute function refuse()"
    );
    site.test.client().await.batch_execute(&trigger).await.unwrap();
    site.claim(10).await.unwrap_err();
    assert!(site.claim(10).await.unwrap_err().is_refusal());
    let claim = site.session.get_jobs_apart("w", &site.task, 10, NOTHING).await.unwrap();
    assert_eq!(claim.refused.iter().map(|(job, _)| job.id).collect::<Vec<_>>(), [bad]);
    let conditions = Conditions { left_out: &[bad], ..NOTHING };
    let mut claimed: HashSet<i64> = claim.jobs.iter().map(|job| job.id).collect();
    loop {
        let jobs = site.session.get_jobs("w", &site.task, 10, conditions).await.unwrap();
        if jobs.is_empty() {
            break;
        }
        claimed.extend(jobs.iter().map(|job| job.id));
    }
    claimed.insert(bad);
    assert_eq!(claimed, ours);
    site.end().await;
}
