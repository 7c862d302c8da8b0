//! Clocks that are set while jobs run: that of a host, and that of Postgres.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    harness::{
        clock::JumpingClock,
        cluster::Cluster,
        plugins::{build_labelled, install, tasks_folder},
        postgres::TestDatabase,
        program::{Running, Taskbay},
        wait::until,
    },
    outages::Place,
};

const HOUR: i64 = 3_600;
/// What nobody works stands before everything else, so that a host remembers how far it has come.
const BEFORE: &str = "
select count(*) from graphile_worker.add_jobs(array(
  select ('nobodys', '{}', case when n % 2 = 0 then 'busy' end, now() - interval '1 day', null, null, null, null)
    ::graphile_worker.job_spec
  from generate_series(1, 20000) as n
));
analyze graphile_worker._private_jobs";
const LEFT: &str = "
select count(*)
from graphile_worker._private_jobs as job
join graphile_worker._private_tasks as task on task.id = job.task_id
where task.identifier <> 'nobodys'";

/// On a machine whose clock is two days ahead.
#[tokio::test]
async fn added_and_rescheduled_jobs_are_due_by_the_clock_that_says_which_jobs_are_due() {
    let database = TestDatabase::installed().await;
    let (url, folder) = (database.url(), tempfile::tempdir().expect("a folder"));
    let clock = JumpingClock::new(folder.path());
    clock.set(48 * HOUR);
    let payloads = folder.path().join("payloads");
    fs::write(&payloads, "{}\n").expect("write a file");
    let jobs = folder.path().join("jobs");
    fs::write(&jobs, "{\"identifier\": \"t\"}\n").expect("write a file");
    let (payloads, jobs) = (payloads.to_str().expect("UTF-8"), jobs.to_str().expect("UTF-8"));
    for (setting, ahead) in [("database", 0), ("process", 48)] {
        let call = |command: &str, args: &[&str]| {
            let call = Taskbay::command(command).args(args).env("DATABASE_URL", &url).by_clock(&clock);
            let output = call.settings(&format!("[worker]\nclock = {setting:?}")).output();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        for (args, hours) in [
            (&["add", "t"][..], 0),
            (&["add", "t", "--in", "5h"], 5),
            (&["add", "t", "--run-at", "now"], 0),
            (&["add", "--file", jobs], 0),
            (&["add", "t", "--file", payloads], 0),
            (&["add", "t", "--file", payloads, "--in", "5h"], 5),
            (&["jobs", "reschedule", "--task", "t", "--yes", "--in", "5h"], 5),
            (&["jobs", "reschedule", "--task", "t", "--yes", "--run-at", "now"], 0),
        ] {
            if args[0] == "add" {
                database.execute("delete from graphile_worker._private_jobs").await;
            }
            call(args[0], &args[1..]);
            let due = database.seconds_until_run(database.only_job().await.id).await / 3_600.0;
            let expected = f64::from(hours + ahead);
            assert!((due - expected).abs() < 0.5, "{args:?} by the clock of the {setting}: due in {due} hours");
        }
    }
}

/// A host that never polls, so that only what it hears or remembers brings it jobs.
fn host(place: &Place) -> Taskbay {
    host_that_polls(place, "1h")
}

fn host_that_polls(place: &Place, interval: &str) -> Taskbay {
    Taskbay::run(&place.cluster.url(), place.folder.path())
        .args(["--poll-interval", interval, "-j", "8"])
        .ledger(&place.ledger)
}

async fn ready(host: Taskbay) -> Running {
    let host = host.spawn();
    host.event("worker_ready", |_| true).await;
    host
}

/// Adds jobs that take so long, with more arguments.
async fn add(client: &Client, count: i64, ms: u64, more: &str) {
    let sql = format!(
        "select count(graphile_worker.add_job('echo', '{{\"sleep_ms\": {ms}, \"announce\": true}}'{more}))
         from generate_series(1, {count}) as n"
    );
    client.batch_execute(&sql).await.expect("add jobs");
}

#[track_caller]
fn drained<'a>(client: &'a Client, what: &'a str) -> impl Future<Output = ()> + 'a {
    until(format!("no job is left, {what}"), async || {
        let left: i64 = client.query_one(LEFT, &[]).await.expect("count the jobs").get(0);
        if left == 0 { Ok(()) } else { Err(left) }
    })
}

/// Adds jobs that take so long until this owner has locked one in the table, and not only in a transaction.
async fn add_until_locked(client: &Client, owner: &str, ms: u64) {
    let sql = "select count(*) filter (where locked_by = $1), count(*) filter (where locked_by is null)
               from graphile_worker._private_jobs";
    until(format_args!("{owner} has locked a job"), async || {
        let row = client.query_one(sql, &[&owner]).await.expect("count the locked jobs");
        let (locked, waiting): (i64, i64) = (row.get(0), row.get(1));
        if locked > 0 {
            return Ok(());
        }
        // Another host may be faster with the first ones.
        if waiting < 16 {
            add(client, 1, ms, "").await;
        }
        Err(waiting)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_on_whichever_way_its_own_clock_is_set() {
    let place = Place::new(&[]).await;
    let client = place.cluster.client().await;
    let folder = tasks_folder();
    let clock = JumpingClock::new(folder.path());
    let limited = host_that_polls(&place, "500ms").settings("[plugins.misbehaving]\ntimeout = \"50s\"");
    let (limited, mut other) = (ready(limited.by_clock(&clock)).await, ready(host(&place)).await);
    let owner = other.event("worker_ready", |_| true).await["owner"].as_str().expect("an owner").to_owned();
    let mut before = limited.event("plugin_loaded", |_| true).await["timestamp"].clone();
    for (label, ahead) in [(1, 24 * HOUR), (2, -24 * HOUR), (3, 0)] {
        let runs = place.ledger.entries().len();
        // More than one of them has slots for, so that some run on each.
        add(&client, 12, 1_500, "").await;
        place.ledger.wait_for(runs + 8).await;
        // Nobody is told when they are due.
        add(&client, 5, 0, ", run_at := now() + interval '1 second'").await;
        clock.set(ahead);
        // It was written at a time that has not come yet, or long ago, by the host's clock.
        install(place.folder.path(), "libmisbehaving.so", &build_labelled(label));
        let loaded = limited.nth_event(&["plugin_loaded"], 1 + label as usize).await["timestamp"].clone();
        let day = |time: &Value| time.as_str().expect("a time").split('T').next().map(str::to_owned);
        assert_ne!(day(&loaded), day(&before), "the host does not go by the clock that the test sets");
        before = loaded;
        add(&client, 50, 0, "").await;
        drained(&client, "with the host's clock set").await;
    }
    let entries = place.ledger.entries();
    assert!(entries.iter().all(|entry| entry.attempt == 1), "nothing was run again");
    assert_eq!(entries.iter().filter(|entry| entry.event == "ended").count(), 3 * 67);
    assert_eq!((limited.events("taken_over").len(), other.events("taken_over").len()), (0, 0));

    // It sees that the other one dies, and goes on to count the seconds until that one is dead.
    add_until_locked(&client, &owner, 5_000).await;
    other.signal(Signal::KILL);
    other.ended().await;
    let back_and_back = async {
        for hours in 1.. {
            clock.set(-hours * HOUR);
            // How often the clock is set is the case under test.
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = back_and_back => {}
        _ = limited.event("taken_over", |_| true) => {}
    }
    drained(&client, "with the host's clock set back all the time").await;
    limited.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_whichever_way_the_clock_of_postgres_is_set() {
    let place = Place::on(Cluster::start_with_clock(&[]).await).await;
    let client = place.cluster.client().await;
    client.batch_execute(BEFORE).await.expect("add what nobody works");
    let host = ready(host(&place)).await;
    for ahead in [0, 2 * HOUR, -HOUR, HOUR, 60, -60, 0] {
        place.cluster.clock().set(ahead);
        // One kind at a time, since each notification has the host look for both.
        for more in ["", ", queue_name := 'q' || n % 4"] {
            add(&client, 40, 0, more).await;
            drained(&client, &format!("with Postgres {ahead} s ahead")).await;
        }
    }
    host.stop().await;
}

/// How long a claim took is what tells how long not to look for jobs behind, and once the clock of Postgres told that.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_while_jobs_are_claimed_puts_nothing_off() {
    let place = Place::on(Cluster::start_with_clock(&[]).await).await;
    let client = place.cluster.client().await;
    client.batch_execute(BEFORE).await.expect("add what nobody works");
    let host = ready(host(&place)).await;
    let over = AtomicBool::new(false);
    let clock = place.cluster.clock();
    thread::scope(|scope| {
        scope.spawn(|| {
            for ahead in [0, HOUR].into_iter().cycle() {
                clock.set(ahead);
                // So that most claims see it set, and each setting is seen by some.
                thread::sleep(Duration::from_micros(500));
                if over.load(Ordering::Acquire) {
                    return clock.set(0);
                }
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..60 {
                    add(&client, 20, 0, "").await;
                    add(&client, 5, 0, ", queue_name := 'q' || n").await;
                    // So that there are claims all the time.
                    sleep(Duration::from_millis(30)).await;
                }
            })
        });
        over.store(true, Ordering::Release);
    });
    for _ in 0..5 {
        add(&client, 5, 0, ", run_at := now() - interval '3 hours'").await;
        add(&client, 5, 0, ", queue_name := 'r' || n, run_at := now() - interval '3 hours'").await;
        let sql = "update graphile_worker._private_jobs set run_at = now() where run_at > now()";
        client.batch_execute(sql).await.expect("bring forward what was added ahead");
        drained(&client, "after the clock was set again and again").await;
    }
    host.stop().await;
}
