//! A host is let on from one await point to the next, and harm is done at each of them between the claim of jobs and their end:
//! none is lost, and none runs again whose end could be stored.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use taskbay::{
    Options,
    config::{Claim, PluginLookup},
    library::Runner,
    plugin::PluginSettings,
};
use tokio::runtime::{Builder, Runtime};

use crate::harness::{
    jobs::JobRow,
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::DEADLINE,
};

/// What happens while each of the host's tasks waits at an await point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// The host ends with all that it has not done.
    Killed,
    /// All of its connections to Postgres are lost.
    CutOff,
    /// The same, and at that moment it is told to stop.
    CutOffAndStopped,
    /// It is told to stop.
    Stopped,
    /// It is told to stop, and to leave what runs.
    StoppedAtOnce,
}

/// A host whose tasks run on one thread, one at a time.
struct Host {
    runtime: Runtime,
    runner: Runner,
}

impl Host {
    fn start(options: Options) -> Self {
        let runtime = Builder::new_current_thread().enable_all().event_interval(1).build().expect("a runtime");
        let runner = runtime.block_on(taskbay::run(options)).expect("the host starts");
        Self { runtime, runner }
    }

    /// Lets all tasks do what they can until this has happened.
    fn until(&self, happened: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !happened() {
            assert!(Instant::now() < deadline, "it does not happen");
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
        }
    }

    /// Lets tasks on so many times in all, each time one of them to its next await point, and stops there. Tells how many times
    /// it was if all is over before.
    fn let_on(&self, times: usize, over: impl Fn() -> bool) -> Result<(), usize> {
        let turns = Arc::new(AtomicU64::new(0));
        let taken = Arc::clone(&turns);
        // It always wants a turn, so that when it gets two running, nobody else wants one.
        let idler = self.runtime.spawn(async move {
            loop {
                taken.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let deadline = Instant::now() + DEADLINE;
        let (mut done, mut idle_since) = (0, None);
        while done < times {
            let before = turns.load(Ordering::Relaxed);
            // One round of the runtime: one turn of one task, and a look at its sockets and timers.
            self.runtime.block_on(tokio::task::yield_now());
            if turns.load(Ordering::Relaxed) == before {
                (done, idle_since) = (done + 1, None);
                continue;
            }
            // Postgres, or the plugin's process, is to answer.
            let since = *idle_since.get_or_insert_with(Instant::now);
            // The test polls the host's tasks itself, so that nothing wakes it.
            thread::sleep(Duration::from_micros(20));
            if since.elapsed() > Duration::from_millis(10) {
                if over() {
                    break;
                }
                idle_since = None;
            }
            assert!(Instant::now() < deadline, "it does not end");
        }
        idler.abort();
        if done < times { Err(done) } else { Ok(()) }
    }

    /// Waits for the end that it was told to come to.
    fn end(self) {
        let ended = async { tokio::time::timeout(DEADLINE, self.runner.wait()).await };
        self.runtime.block_on(ended).expect("the host ends in time").expect("the host ends well");
    }
}

struct Place {
    /// For what the test itself does.
    aside: Runtime,
    database: TestDatabase,
    folder: tempfile::TempDir,
    ledger: Ledger,
    client: tokio_postgres::Client,
}

impl Place {
    fn new() -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        let aside = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let database = aside.block_on(TestDatabase::installed());
        let client = aside.block_on(database.client());
        Self { aside, database, folder, ledger: Ledger::new(), client }
    }

    fn host(&self, lane: Claim) -> Host {
        let settings = json!({"echo_file": self.ledger.path()});
        let plugin =
            PluginSettings { settings: settings.as_object().cloned().unwrap_or_default(), ..PluginSettings::default() };
        let plugins = PluginLookup { by_name: [("misbehaving".to_owned(), plugin)].into(), ..PluginLookup::default() };
        let options = Options::new()
            .config(self.database.config())
            .folder(self.folder.path())
            .program(env!("CARGO_BIN_EXE_taskbay"))
            .plugins(plugins)
            .claim(lane)
            .concurrency(4)
            .poll_interval(Duration::from_millis(500));
        Host::start(options)
    }

    fn execute(&self, sql: &str) {
        self.aside.block_on(self.client.batch_execute(sql)).expect(sql);
    }

    fn count(&self, sql: &str) -> i64 {
        self.aside.block_on(self.client.query_one(sql, &[])).expect(sql).get(0)
    }

    fn jobs(&self) -> Vec<JobRow> {
        self.aside.block_on(self.database.jobs())
    }

    fn add(&self, count: usize, payload: &str, max_attempts: i16, queue: Option<&str>) {
        let sql = "select count(*) from graphile_worker.add_jobs(array(
                     select row('echo', $2::text::json, $4::text, now(), $3::int2, null, 0, null)::graphile_worker.job_spec
                     from generate_series(1, $1::int4) as n))";
        let count = i32::try_from(count).expect("a few");
        self.aside.block_on(self.client.query_one(sql, &[&count, &payload, &max_attempts, &queue])).expect(sql);
    }

    fn cut_all_off(&mut self) {
        self.aside.block_on(self.database.terminate_others());
        self.client = self.aside.block_on(self.database.client());
    }

    /// Every job is done, or has failed for good.
    fn is_settled(&self) -> bool {
        self.count("select count(*) from graphile_worker._private_jobs where is_available or locked_at is not null")
            == 0
    }
}

/// As many as show a task to be short.
const WARM_UP: usize = 50;
/// There are not more points than this.
const TOO_MANY: usize = 3_000;

const FAILED: &str = "delete from graphile_worker._private_jobs where locked_at is null and attempts = max_attempts";
/// What liveness does for a host that was killed, as `liveness` shows, but as if the attempt had not been.
const FREE: &str = "
    update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = attempts - 1
    where locked_at is not null;
    update graphile_worker._private_job_queues set locked_by = null, locked_at = null where locked_at is not null";

fn at_each_await_point(lane: Claim, harm: Harm) {
    let mut place = Place::new();
    let mut survivor = None;
    // Whose end could not be stored.
    let mut again = HashSet::new();
    let mut added = 0;
    let points = loop {
        let point = added / (WARM_UP + 5);
        assert!(point < TOO_MANY, "it never ends");
        let host = survivor.take().unwrap_or_else(|| place.host(lane));
        // With them, what the last one has left.
        place.add(WARM_UP, "{}", 25, None);
        host.until(|| place.is_settled());
        place.execute(FAILED);
        // One is done, two are one after the other, one fails for good, and one takes longer than a transaction is open.
        place.add(1, "{}", 25, None);
        place.add(2, "{}", 25, Some("queue"));
        place.add(1, r#"{"fail_until": 1}"#, 1, None);
        place.add(1, r#"{"sleep_ms": 45}"#, 25, None);
        added += WARM_UP + 5;
        let all = host.let_on(point, || place.is_settled()).err();
        match harm {
            _ if all.is_some() => survivor = Some(host),
            Harm::Killed => {
                drop(host.runtime);
                place.aside.block_on(place.database.wait_until_others_rest());
            }
            Harm::CutOff => {
                place.cut_all_off();
                host.until(|| place.is_settled());
                survivor = Some(host);
            }
            Harm::CutOffAndStopped => {
                place.cut_all_off();
                host.runner.pool().graceful_shutdown();
                host.end();
            }
            Harm::Stopped => {
                host.runner.pool().graceful_shutdown();
                host.end();
            }
            Harm::StoppedAtOnce => {
                host.runner.pool().forceful_shutdown();
                host.end();
            }
        }
        let runs = place.ledger.runs();
        for job in place.jobs() {
            let (attempts, error) = (job.attempts, job.last_error.as_deref());
            match (job.locked_by.is_some(), error) {
                (false, Some(error)) => assert_eq!((attempts, error), (1, "failed as asked"), "at {point}: {job:?}"),
                (locked, None) => {
                    let may_have_run = matches!(harm, Harm::Killed | Harm::StoppedAtOnce);
                    assert!(!locked || harm == Harm::Killed, "at {point}: {job:?}");
                    assert_eq!(attempts, i16::from(locked), "at {point}: {job:?}");
                    assert!(may_have_run || !runs.contains_key(&job.id), "at {point}, its end is not stored: {job:?}");
                    again.insert(job.id);
                }
                (true, Some(_)) => panic!("at {point}: {job:?}"),
            }
        }
        let twice: Vec<_> = runs.iter().filter(|(job, runs)| **runs > 1 && !again.contains(job)).collect();
        assert!(twice.is_empty(), "at {point}, the ends were stored, and some ran again: {twice:?}");
        if harm == Harm::Killed {
            place.execute(FREE);
        }
        assert_eq!(
            place.count("select count(*) from graphile_worker._private_job_queues where locked_by is not null"),
            0
        );
        if let Some(all) = all {
            break all;
        }
    };
    println!("{lane:?}, {harm:?}: {points} points, {} jobs run again or later", again.len());
    assert!(points > 20, "it claimed, ran and stored");
    let host = survivor.expect("nothing happened to the last one");
    host.until(|| place.is_settled());
    host.runner.pool().graceful_shutdown();
    host.end();
    assert_eq!(place.ledger.runs().len(), added, "none was lost");
}

#[test]
fn a_host_that_is_killed_loses_nothing_and_repeats_only_what_it_had_not_stored() {
    for lane in [Claim::Express, Claim::Marked] {
        at_each_await_point(lane, Harm::Killed);
    }
}

#[test]
fn a_host_that_is_cut_off_loses_and_repeats_nothing() {
    for lane in [Claim::Express, Claim::Marked] {
        at_each_await_point(lane, Harm::CutOff);
    }
}

#[test]
fn a_host_that_is_stopped_while_it_is_cut_off_loses_and_repeats_nothing() {
    for lane in [Claim::Express, Claim::Marked] {
        at_each_await_point(lane, Harm::CutOffAndStopped);
    }
}

#[test]
fn a_host_that_is_stopped_loses_and_repeats_nothing() {
    for lane in [Claim::Express, Claim::Marked] {
        at_each_await_point(lane, Harm::Stopped);
    }
}

#[test]
fn a_host_that_is_stopped_at_once_gives_back_what_it_had_not_stored() {
    for lane in [Claim::Express, Claim::Marked] {
        at_each_await_point(lane, Harm::StoppedAtOnce);
    }
}
