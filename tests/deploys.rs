//! A new host starts before the old one stops, as in a rolling deployment.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::harness::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

const DEPLOYS: usize = 6;
const JOBS_EACH: usize = 1_500;

/// Short ones, longer ones, and some in queues.
async fn add_many(database: &TestDatabase) {
    let sql = format!(
        "select count(*) from graphile_worker.add_jobs(array(
           select row('echo', json_build_object('n', n, 'sleep_ms', case when n % 50 = 0 then 30 else 0 end),
                      case when n % 10 = 0 then 'queue ' || n % 70 end, now(), 25, null, 0, null)::graphile_worker.job_spec
           from generate_series(1, {JOBS_EACH}) as n))"
    );
    database.id_of(&sql, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_take_turns_lose_and_repeat_nothing() {
    let (database, ledger, folder) = (TestDatabase::installed().await, Ledger::new(), tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let start = async || {
        let command = Taskbay::run(&database.url(), folder.path()).ledger(&ledger);
        let host = command.args(["--log-level", "info", "--jobs", "5"]).spawn();
        host.event("worker_ready", |_| true).await;
        host
    };
    let mut host = start().await;
    for deploy in 0..DEPLOYS {
        add_many(&database).await;
        // In the middle of its work.
        ledger.wait_for(deploy * JOBS_EACH + 100).await;
        let next = start().await;
        host.signal(Signal::TERM);
        host.ended_by(Signal::TERM).await;
        host = next;
    }
    database.wait_until_no_jobs().await;
    host.stop().await;
    let mut runs: BTreeMap<i64, usize> = BTreeMap::new();
    ledger.entries().iter().for_each(|run| *runs.entry(run.job).or_default() += 1);
    assert_eq!(runs.len(), DEPLOYS * JOBS_EACH, "none is lost");
    let repeated: Vec<_> = runs.iter().filter(|(_, runs)| **runs > 1).collect();
    assert!(repeated.is_empty(), "run more than once: {repeated:?}");
    assert_eq!(database.locked_queues().await, 0);
}
