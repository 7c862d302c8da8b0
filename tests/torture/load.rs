//! Jobs of every kind, all the time.

use std::{collections::HashSet, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

use crate::harness::cluster::Cluster;

/// So many come at once.
const BATCH: i64 = 20;
const EVERY: Duration = Duration::from_millis(40);

/// One job is of one kind, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Only one of its queue at a time.
    InQueue,
    /// Fails at the first attempt.
    FailsOnce,
    /// Fails at its only attempt.
    Hopeless,
    /// Takes its process down, each time.
    Crashes,
    /// Takes seconds.
    Long,
}

pub(super) fn kind(n: i64) -> Kind {
    match n {
        _ if n % 2_000 == 7 => Kind::Crashes,
        _ if n % 250 == 3 => Kind::Long,
        _ if n % 100 == 1 => Kind::Hopeless,
        _ if n % 40 == 2 => Kind::FailsOnce,
        _ if n % 8 == 0 => Kind::InQueue,
        _ => Kind::Plain,
    }
}

/// Whether a job writes its runs into the database; the others write them into files, which are there while the database is away.
pub(super) fn writes_rows(n: i64) -> bool {
    n / 3 % 2 == 0
}

/// The numbers of jobs.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) certain: HashSet<i64>,
    /// Those of statements whose answer was lost.
    pub(super) perhaps: HashSet<i64>,
}

pub(super) struct Load {
    stop: CancellationToken,
    adding: JoinHandle<Added>,
}

impl Load {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let stop = CancellationToken::new();
        let adding = tokio::spawn(add(cluster.config("jobs", cluster.port()), stop.clone()));
        Self { stop, adding }
    }

    pub(super) async fn finish(self) -> Added {
        self.stop.cancel();
        self.adding.await.expect("the load ends")
    }
}

async fn add(config: Config, stop: CancellationToken) -> Added {
    let mut added = Added::default();
    let mut client: Option<Client> = None;
    let mut pace = tokio::time::interval(EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = 0;
    while !stop.is_cancelled() {
        pace.tick().await;
        let connected = match client.take().filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => config.connect(NoTls).await.map(|(client, connection)| {
                tokio::spawn(connection);
                client
            }),
        };
        let Ok(connected) = connected else { continue };
        let batch = next..next + BATCH;
        next += BATCH;
        match connected.batch_execute(&statement(batch.clone())).await {
            Ok(()) => added.certain.extend(batch),
            Err(_) => added.perhaps.extend(batch),
        }
        client = Some(connected);
    }
    added
}

/// All of a batch in one transaction.
fn statement(batch: std::ops::Range<i64>) -> String {
    let job = |n: i64| {
        let (more, queue, attempts) = match kind(n) {
            Kind::Plain => (format!(r#""sleep_ms": {}"#, n % 4 * 5), "null".to_owned(), 25),
            Kind::InQueue => (r#""sleep_ms": 5"#.to_owned(), format!("'q{}'", n / 8 % 10), 25),
            Kind::FailsOnce => (r#""fail_until": 1"#.to_owned(), "null".to_owned(), 25),
            Kind::Hopeless => (r#""fail_until": 99"#.to_owned(), "null".to_owned(), 1),
            Kind::Crashes => (r#""abort": true"#.to_owned(), "null".to_owned(), 25),
            Kind::Long => (format!(r#""sleep_ms": {}"#, 1_000 + n % 3 * 1_500), "null".to_owned(), 25),
        };
        let task = if writes_rows(n) { "record" } else { "echo" };
        format!(
            "select graphile_worker.add_job('{task}', '{{\"n\": {n}, \"announce\": true, {more}}}', \
             queue_name := {queue}, max_attempts := {attempts});"
        )
    };
    std::iter::once("begin;".to_owned()).chain(batch.map(job)).chain(["commit".to_owned()]).collect()
}
