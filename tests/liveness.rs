//! Hosts that die, and hosts that only seem to: what they had is taken over within seconds, or left to them.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ledger::{Entry, Ledger},
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Running, Taskbay},
    proxy::{Proxy, Way},
    wait::until_true,
};

mod healthy;

struct Place {
    database: TestDatabase,
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Place {
    async fn new() -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        Self { database: TestDatabase::installed().await, folder, ledger: Ledger::new() }
    }

    async fn host(&self) -> Running {
        let host = Taskbay::run(&self.database.url(), self.folder.path()).ledger(&self.ledger).spawn();
        host.event("worker_ready", |_| true).await;
        host
    }

    /// Adds a job that takes so long, in a queue, and waits until it runs.
    async fn begin(&self, ms: u64) -> i64 {
        let id = self.database.add_to_queue("echo", json!({"sleep_ms": ms, "announce": true}), "q").await;
        wait_until("the job runs", || self.runs_of(id).iter().any(|run| run.event == "began")).await;
        id
    }

    fn runs_of(&self, id: i64) -> Vec<Entry> {
        self.ledger.entries().into_iter().filter(|entry| entry.job == id).collect()
    }

    /// The attempts that began, in their order.
    fn attempts_of(&self, id: i64) -> Vec<i16> {
        self.runs_of(id).iter().filter(|run| run.event == "began").map(|run| run.attempt).collect()
    }

    /// Ends the connections on which hosts show that they live.
    async fn cut_off_the_living(&self) {
        let sql = "select count(pg_terminate_backend(pid)) from pg_locks
                   where locktype = 'advisory' and classid = 1952543595
                     and database = (select oid from pg_database where datname = current_database())";
        assert!(self.database.id_of(sql, &[]).await > 0, "somebody shows life");
    }

    async fn living(&self) -> i64 {
        let sql = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1952543595
                     and database = (select oid from pg_database where datname = current_database())";
        self.database.id_of(sql, &[]).await
    }
}

/// What the jobs write down tells nobody that it has come.
async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    until_true(what, async || holds()).await;
}

fn taken_over(jobs: i64) -> impl Fn(&Value) -> bool {
    move |line| line["jobs"] == jobs
}

/// The promise is below five seconds; what it took is printed, because a loaded machine may take longer.
#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_host_that_was_killed_are_run_by_another_one_within_seconds() {
    let place = Place::new().await;
    let mut first = place.host().await;
    let id = place.begin(600_000).await;
    // Owners of other programs, and hosts that nobody can see whether they live, have 4 hours.
    let theirs = place.database.add("theirs", json!({})).await;
    let hidden = place.database.add("theirs", json!({})).await;
    let lock = |id: i64, owner: &str| {
        format!("update graphile_worker._private_jobs set locked_by = '{owner}', locked_at = now() where id = {id}")
    };
    place.database.execute(&lock(theirs, "worker-0123456789abcdef")).await;
    place.database.execute(&lock(hidden, "taskbay-0123456789abcdef01")).await;
    let second = place.host().await;
    first.signal(Signal::KILL);
    let killed = Instant::now();
    first.ended().await;
    let event = second.event("taken_over", taken_over(1)).await;
    assert!(event["owners"].as_str().is_some_and(|owners| owners.starts_with("taskbay-live-")), "{event}");
    wait_until("it runs again", || place.attempts_of(id).len() == 2).await;
    println!("from SIGKILL to the job's next start: {:?}", killed.elapsed());
    assert_eq!(place.attempts_of(id), [1, 2], "the attempt that the host died in counts");
    let job = place.database.job(id).await;
    assert!(job.last_error.is_some_and(|error| error.contains("ended without a word")));
    for id in [theirs, hidden] {
        assert!(place.database.job(id).await.locked_by.is_some(), "it is left alone");
    }
    second.signal(Signal::TERM);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_takes_over_from_the_one_that_died_before_it_started() {
    let place = Place::new().await;
    let mut first = place.host().await;
    let id = place.begin(600_000).await;
    first.signal(Signal::KILL);
    first.ended().await;
    let second = place.host().await;
    second.event("taken_over", taken_over(1)).await;
    wait_until("it runs again", || place.attempts_of(id).len() == 2).await;
}

/// A release may have to wait within the database, here in a trigger: what the dead had waits for that, and nothing else does. Who
/// releases it still sees that its own lock is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_waits_to_take_over_still_shows_that_it_lives() {
    let place = Place::new().await;
    let mut first = place.host().await;
    let id = place.begin(600_000).await;
    place
        .database
        .execute(
            "create function wait() returns trigger language plpgsql as
             $$ begin perform pg_advisory_xact_lock(42); return new; end $$;
             create trigger wait before update on graphile_worker._private_jobs
             for each row when (new.locked_at is null) execute function wait()",
        )
        .await;
    let client = place.database.client().await;
    client.batch_execute("select pg_advisory_lock(42)").await.expect("keep the trigger waiting");
    let second = place.host().await;
    first.signal(Signal::KILL);
    first.ended().await;
    place.database.wait_until_blocked().await;
    // The one that waits has a lock as well: that of the dead one.
    let living = "from pg_locks as held join pg_stat_activity as of on of.pid = held.pid
                  where held.locktype = 'advisory' and held.classid = 1952543595 and of.datname = current_database()
                    and of.wait_event_type is distinct from 'Lock'";
    let ended = place.database.id_of(&format!("select count(pg_terminate_backend(held.pid)) {living}"), &[]).await;
    assert_eq!(ended, 1, "the second one shows life");
    let shown = format!("select count(*) {living}");
    until_true("it sees that its lock is gone", async || place.database.id_of(&shown, &[]).await > 0).await;
    assert_eq!(place.attempts_of(id), [1], "the trigger waits");
    client.batch_execute("select pg_advisory_unlock(42)").await.expect("let the trigger go on");
    wait_until("it runs again", || place.attempts_of(id).len() == 2).await;
    second.signal(Signal::TERM);
    drop(second);
}

/// A transaction may have the row of a dead host's job locked for long, as one of an application or a forgotten `psql` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_holds_up_its_own_job_and_no_other_of_those_that_died() {
    let place = Place::new().await;
    let mut first = place.host().await;
    let locked = place.begin(600_000).await;
    let other = place.database.add("echo", json!({"sleep_ms": 600_000, "announce": true})).await;
    wait_until("the job runs", || place.attempts_of(other).len() == 1).await;
    let client = place.database.client().await;
    client
        .batch_execute(&format!("begin; select from graphile_worker._private_jobs where id = {locked} for update"))
        .await
        .expect("lock the row of the job");
    let second = place.host().await;
    first.signal(Signal::KILL);
    first.ended().await;
    second.event("taken_over", taken_over(1)).await;
    wait_until("the other one runs again", || place.attempts_of(other).len() == 2).await;
    assert_eq!(place.attempts_of(locked), [1], "its row is locked");
    client.batch_execute("commit").await.expect("let the row go");
    wait_until("it runs again", || place.attempts_of(locked).len() == 2).await;
    second.signal(Signal::TERM);
    drop(second);
}

/// Longer than anybody waits before taking a host for dead.
const LONGER: u64 = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stands_still_or_loses_its_connection_keeps_its_job() {
    for how in ["stands still", "is cut off", "is cut off with all others"] {
        let place = Place::new().await;
        let first = place.host().await;
        let id = place.begin(LONGER).await;
        let second = place.host().await;
        match how {
            "stands still" => {
                first.signal(Signal::STOP);
                // Its job runs on in a process of its own, and ends while the host cannot hear of it.
                wait_until("the job ends", || place.runs_of(id).len() == 2).await;
                first.signal(Signal::CONT);
            }
            "is cut off" => place.cut_off_the_living().await,
            _ => place.database.terminate_others().await,
        }
        place.database.wait_until_no_jobs().await;
        assert_eq!(place.attempts_of(id), [1], "{how}");
        assert_eq!(place.living().await, 2, "{how}");
        for host in [first, second] {
            assert_eq!(host.events("taken_over").len(), 0, "{how}");
            host.stop().await;
        }
    }
}

/// An answer that came while a host stood still was once taken for one that did not come, when the time for it was over.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stood_still_reads_what_came_meanwhile_before_it_gives_its_connection_up() {
    let place = Place::new().await;
    let proxy = Proxy::start(place.database.port()).await;
    let url = place.database.url().replace(&format!(":{}/", place.database.port()), &format!(":{}/", proxy.port()));
    let host = Taskbay::run(&url, place.folder.path()).ledger(&place.ledger).spawn();
    host.event("worker_ready", |_| true).await;
    let holder = "select coalesce(max(pid), 0)::int8 from pg_locks where locktype = 'advisory' and classid = 1952543595
                  and database = (select oid from pg_database where datname = current_database())";
    until_true("it shows life", async || place.living().await > 0).await;
    let before = place.database.id_of(holder, &[]).await;
    // A look that is there and back in five seconds is under way most of the time.
    proxy.set(Way::Delay(Duration::from_millis(2_500))).await;
    let of_its = |what: &str| format!("select count(*) from pg_stat_activity where pid = $1::int8 and {what}");
    for stops_left in [2, 1, 0] {
        // The server has been asked a moment ago, so its answer arrives while the host stands still.
        while place.database.id_of(&of_its("clock_timestamp() - query_start < '500 ms'"), &[&before]).await == 0 {
            assert_eq!(place.database.id_of(&of_its("true"), &[&before]).await, 1, "it gave its connection up");
            // The server tells nobody what it is asked.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if stops_left > 0 {
            host.signal(Signal::STOP);
            // For longer than it waits for an answer: the silence is what the test is about.
            tokio::time::sleep(Duration::from_secs(9)).await;
            host.signal(Signal::CONT);
        }
    }
    assert_eq!(place.database.id_of(holder, &[]).await, before, "it has kept its connection");
    proxy.set(Way::Pass).await;
    host.stop().await;
}

/// As when its network is gone: it lives, and nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_that_was_taken_for_dead_says_late_changes_nothing() {
    let place = Place::new().await;
    let first = place.host().await;
    let id = place.begin(4_000).await;
    let second = place.host().await;
    first.signal(Signal::STOP);
    let of_first = first.event("worker_ready", |_| true).await["owner"].as_str().expect("an owner").to_owned();
    let sql = "select count(pg_terminate_backend(pid)) from pg_locks
               where locktype = 'advisory' and classid = 1952543595
                 and objid = (hashtext($1)::int8 & 4294967295)::oid";
    assert_eq!(place.database.id_of(sql, &[&of_first]).await, 1);
    second.event("taken_over", taken_over(1)).await;
    wait_until("it runs again", || place.attempts_of(id).len() == 2).await;
    // The first run has to end now, while the second one goes on.
    first.signal(Signal::CONT);
    wait_until("the first run ends", || place.runs_of(id).iter().any(|run| run.event == "ended")).await;
    first.event("verdict_overruled", |line| line["job"] == id).await;
    let job = place.database.job(id).await;
    assert_eq!((job.attempts, job.locked_by.is_some()), (2, true), "it is the second host's");
    place.database.wait_until_no_jobs().await;
    assert_eq!(place.attempts_of(id), [1, 2]);
    for host in [first, second] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_for_life_where_that_is_switched_off() {
    let place = Place::new().await;
    let host = Taskbay::run(&place.database.url(), place.folder.path()).arg("--no-liveness").spawn();
    let ready = host.event("worker_ready", |_| true).await;
    assert!(!ready["owner"].as_str().is_some_and(|owner| owner.contains("live")), "{ready}");
    let id = place.database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    assert_eq!(place.living().await, 0);
    host.stop().await;
}

/// Not a test but a measurement: how long it takes from `kill -9` of a host until its job runs on another one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run it on an idle machine for its numbers"]
async fn fifty_kills_measured() {
    let place = Place::new().await;
    let payload = json!({"sleep_ms": 3_600_000, "announce": true});
    let sql = format!("select (graphile_worker.add_job('echo', '{payload}', max_attempts := 1000)).id");
    let mut victim = place.host().await;
    let id = place.database.id_of(&sql, &[]).await;
    let started = |count: usize| {
        let place = &place;
        async move {
            wait_until("it runs again", || place.attempts_of(id).len() >= count).await;
        }
    };
    started(1).await;
    let mut took = Vec::new();
    for kill in 1..=51 {
        let next = place.host().await;
        let killed = Instant::now();
        victim.signal(Signal::KILL);
        started(1 + kill).await;
        took.push(killed.elapsed());
        victim.ended().await;
        victim = next;
    }
    // Right after its start, the server may have cut everybody off, so that nobody is taken for dead for a while.
    let first = took.remove(0);
    println!("the first one, perhaps soon after the server's start: {first:?}");
    took.sort();
    println!(
        "from SIGKILL to the job's next start, 50 times: least {:?}, median {:?}, most {:?}",
        took[0], took[25], took[49]
    );
}

/// What a transaction of the express lane has locked stays locked until the server notices that the machine is gone: it asks after
/// whoever has said nothing for five seconds, not for two hours.
#[tokio::test]
async fn the_server_soon_asks_after_hosts_that_lock_jobs() {
    let place = Place::new().await;
    let host = place.host().await;
    place.database.add("echo", json!({})).await;
    place.database.wait_until_no_jobs().await;
    let sql = "select client_port from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid() and query like '%_private_jobs%'
                 and query not like '%taskbay-live-%'";
    let rows = place.database.client().await.query(sql, &[]).await.expect("see who works jobs");
    let ports: Vec<String> = rows.iter().map(|row| format!(":{:04X}", row.get::<_, i32>(0))).collect();
    assert!(!ports.is_empty(), "the host works jobs");
    let asked_soon = |port: &String| {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets of this machine");
        let of_server = |socket: &Vec<&str>| socket.get(2).is_some_and(|remote| remote.ends_with(port));
        let socket = sockets.lines().map(|line| line.split_whitespace().collect()).find(of_server);
        // The timer, and the rest of its time in hundredths of a second. 02 is the one that asks after a while without a word; when
        // something has just been sent, there is another one.
        let rest = socket.expect("the server's end")[5].strip_prefix("02:").map(|rest| u32::from_str_radix(rest, 16));
        rest.is_some_and(|rest| rest.is_ok_and(|rest| rest <= 500))
    };
    wait_until("the server would ask within five seconds", || ports.iter().all(asked_soon)).await;
    host.stop().await;
}
