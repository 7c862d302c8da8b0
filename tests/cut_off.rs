//! Connections that are lost at each message by which jobs are claimed and their results stored: whichever it is, every job is
//! done once.

#[path = "cut_off/proxy.rs"]
mod proxy;

use std::time::Duration;

use self::proxy::{Harm, Proxy, Way};
use crate::harness::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
    wait::until,
};

/// As many as show a task to be short.
const WARM_UP: usize = 50;

/// There are not more messages than this, on either way, from some jobs' coming to their end.
const TOO_MANY: usize = 400;

struct Place {
    database: TestDatabase,
    folder: tempfile::TempDir,
    ledger: Ledger,
    proxy: Proxy,
}

impl Place {
    async fn new() -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        let database = TestDatabase::installed().await;
        let port = database.config().get_ports().first().copied().unwrap_or(5432);
        Self { database, folder, ledger: Ledger::new(), proxy: Proxy::to(port).await }
    }

    /// A host behind the proxy.
    async fn host(&self, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let port = self.database.config().get_ports().first().copied().unwrap_or(5432);
        let url =
            self.database.url().replace(&format!(":{port}/"), &format!(":{}/", self.proxy.port)) + "?sslmode=disable";
        let host = Taskbay::run(&url, self.folder.path()).ledger(&self.ledger).args(args);
        let host = environment.iter().fold(host, |host, (name, value)| host.env(name, value)).spawn();
        host.event("worker_ready", |_| true).await;
        host
    }

    async fn add(&self, count: usize, payload: &str, max_attempts: i16) {
        let sql = format!(
            "select count(*) from graphile_worker.add_jobs(array(
               select row('echo', '{payload}'::json, null, now(), {max_attempts}::int2, null, 0, null)
                 ::graphile_worker.job_spec
               from generate_series(1, {count}) as n))"
        );
        self.database.id_of(&sql, &[]).await;
    }

    /// Waits until every job is done or has failed for good. What is locked although the host does not have it is given back by the
    /// host itself.
    async fn settled(&self) {
        const LEFT: &str =
            "select count(*) from graphile_worker._private_jobs where is_available or locked_at is not null";
        until("every job is done or has failed for good", async || {
            let left = self.database.id_of(LEFT, &[]).await;
            if left == 0 { Ok(()) } else { Err(format!("{:?}", self.database.jobs().await)) }
        })
        .await;
    }
}

/// Forgets what has failed for good.
const NEXT_ROUND: &str =
    "delete from graphile_worker._private_jobs where locked_at is null and attempts = max_attempts";

/// Does harm at every message of one way, one after the other, and sees what became of the jobs each time.
async fn at_every_message(lane: &str, way: Way, harm: Harm) {
    let place = Place::new().await;
    // Nothing is found because somebody looks now and then. An answer that is held back holds up those who look, too.
    let poll_interval = if matches!(harm, Harm::Hold(_)) { "500ms" } else { "1h" };
    let host = place.host(&["--claim", lane, "--poll-interval", poll_interval, "--jobs", "4"], &[]).await;
    let (mut added, mut messages) = (0, 0);
    loop {
        place.add(WARM_UP, "{}", 25).await;
        place.settled().await;
        place.proxy.quiet().await;
        place.proxy.plan(way, messages, harm);
        // Three are done, one fails for good, and one takes longer than a transaction is open.
        place.add(3, "{}", 25).await;
        place.add(1, r#"{"fail_until": 1}"#, 1).await;
        place.add(1, r#"{"sleep_ms": 45}"#, 25).await;
        place.settled().await;
        added += WARM_UP + 5;
        place.proxy.quiet().await;
        let done = place.proxy.was_done();
        for job in place.database.jobs().await {
            let (attempts, error) = (job.attempts, job.last_error.as_deref());
            assert_eq!((attempts, error), (1, Some("failed as asked")), "at message {messages}: {job:?}");
        }
        place.database.execute(NEXT_ROUND).await;
        let runs = place.ledger.runs();
        let twice: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
        assert!(twice.is_empty(), "at message {messages}, the results could be stored, and some ran again: {twice:?}");
        if !done {
            break;
        }
        messages += 1;
        assert!(messages < TOO_MANY, "it never ends");
    }
    println!("{lane}, {way:?}, {harm:?}: {messages} messages");
    assert!(messages > 8, "it claimed and stored something");
    place.database.execute("notify \"jobs:insert\", '{\"count\": 1}'").await;
    place.settled().await;
    host.stop().await;
    place.database.execute(NEXT_ROUND).await;
    assert!(place.database.jobs().await.is_empty(), "{:?}", place.database.jobs().await);
    assert_eq!(place.ledger.runs().len(), added, "none was lost");
    assert_eq!(place.database.locked_queues().await, 0);
}

/// A job that has waited too long for another one to end goes back, and is claimed again: with the same attempt, so that a
/// return that came through without anybody hearing of it could be mistaken for one that did not.
async fn at_every_message_about_a_return(way: Way, harm: Harm) {
    let place = Place::new().await;
    let args = ["--poll-interval", "1h", "--jobs", "1", "--log-level", "debug"];
    let host = place.host(&args, &[("TASKBAY_LOCAL_QUEUE_SIZE", "2"), ("TASKBAY_LOCAL_QUEUE_TTL", "40ms")]).await;
    let (mut added, mut messages) = (0, 0);
    loop {
        place.proxy.quiet().await;
        place.proxy.plan(way, messages, harm);
        place.add(2, r#"{"sleep_ms": 70}"#, 1).await;
        added += 2;
        // Nobody else frees what is locked for nobody.
        until(format_args!("every job is done, with harm at message {messages}"), async || {
            let jobs = place.database.jobs().await;
            if jobs.is_empty() { Ok(()) } else { Err(format!("{jobs:?}")) }
        })
        .await;
        let runs = place.ledger.runs();
        let twice: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
        assert!(twice.is_empty(), "at message {messages}, some ran again: {twice:?}");
        if !place.proxy.was_done() {
            break;
        }
        messages += 1;
        assert!(messages < TOO_MANY, "it never ends");
    }
    let returned = host.events("job_returned").len();
    println!("{way:?}, {harm:?}: {messages} messages, {returned} jobs given back");
    assert!(messages > 4 && returned >= messages, "jobs went back");
    host.stop().await;
    assert_eq!(place.ledger.runs().len(), added, "none was lost");
}

/// Which jobs a claim has locked whose answer was lost, the host does not know. It looks before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_stopped_leaves_nothing_locked_whichever_answer_was_lost() {
    let place = Place::new().await;
    let (mut added, mut messages) = (0, 0);
    loop {
        let host = place.host(&["--claim", "marked", "--poll-interval", "1h"], &[]).await;
        place.settled().await;
        place.proxy.quiet().await;
        place.proxy.plan(Way::ToHost, messages, Harm::Cut);
        place.add(3, "{}", 25).await;
        added += 3;
        until(format_args!("harm at message {messages}, or no more messages"), async || {
            let jobs = place.database.jobs().await;
            if place.proxy.is_done() || jobs.is_empty() { Ok(()) } else { Err(format!("{jobs:?}")) }
        })
        .await;
        host.stop().await;
        for job in place.database.jobs().await {
            assert_eq!((job.locked_by.as_deref(), job.attempts), (None, 0), "at message {messages}: {job:?}");
        }
        messages += 1;
        if !place.proxy.was_done() {
            break;
        }
        assert!(messages < TOO_MANY, "it never ends");
    }
    println!("{messages} messages");
    assert!(messages > 4, "it claimed and stored something");
    let host = place.host(&[], &[]).await;
    place.settled().await;
    host.stop().await;
    assert_eq!(place.ledger.runs().values().filter(|runs| **runs == 1).count(), added, "each is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_went_back_are_done_once_whichever_answer_is_the_last() {
    at_every_message_about_a_return(Way::ToHost, Harm::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_went_back_are_done_once_whichever_message_comes_after_its_connection_was_lost() {
    at_every_message_about_a_return(Way::ToServer, Harm::Late(Duration::from_millis(150))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn express_jobs_are_done_once_whichever_message_to_the_server_is_the_last() {
    at_every_message("express", Way::ToServer, Harm::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn express_jobs_are_done_once_whichever_answer_is_the_last() {
    at_every_message("express", Way::ToHost, Harm::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn express_jobs_are_done_once_whichever_message_comes_after_its_connection_was_lost() {
    at_every_message("express", Way::ToServer, Harm::Late(Duration::from_millis(150))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_jobs_are_done_once_whichever_message_to_the_server_is_the_last() {
    at_every_message("marked", Way::ToServer, Harm::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_jobs_are_done_once_whichever_answer_is_the_last() {
    at_every_message("marked", Way::ToHost, Harm::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marked_jobs_are_done_once_whichever_message_comes_after_its_connection_was_lost() {
    at_every_message("marked", Way::ToServer, Harm::Late(Duration::from_millis(150))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_done_once_whichever_message_takes_its_time() {
    for lane in ["express", "marked"] {
        at_every_message(lane, Way::ToServer, Harm::Hold(Duration::from_millis(60))).await;
    }
}
