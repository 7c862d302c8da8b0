//! A task that writes down its runs in a table of the database that its jobs are in, over a connection of its own.

use std::{env, fmt, process, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use taskbay_plugin::{
    prelude::*,
    tokio::{self, sync::Mutex},
};
use tokio_postgres::{Client, Config, NoTls};

/// The ten characters after the colon are the build's label, which a test patches to get another build.
#[used]
static BUILD_LABEL: [u8; 24] = *b"taskbay-label:0000000000";

/// Who gets no answer for so long fails, and is tried again.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// $1 job, $2 its number, $3 attempt, $4 host, $5 queue, $6 process, $7 the time. What the job's own row says at this moment is
/// written down as well.
const BEGAN: &str = "
insert into torture_runs (job, n, attempt, host, queue, pid, began_us, owner, attempts)
select $1::int8, $2::int8, $3::int4, $4::text, $5::text, $6::int4, $7::int8, stored.locked_by, stored.attempts
from (select) as always
left join graphile_worker._private_jobs as stored on stored.id = $1
returning run";

/// $1 run, $2 the time.
const ENDED: &str = "update torture_runs set ended_us = $2, ended_at = clock_timestamp() where run = $1";

#[derive(Deserialize)]
struct Settings {
    host: String,
}

struct Ledger {
    host: String,
    config: Config,
    /// All jobs use the same one.
    client: Mutex<Option<Arc<Client>>>,
}

fn open(setup: &Setup) -> Result<Ledger, TaskError> {
    let Settings { host } = setup.settings()?;
    let url = env::var("DATABASE_URL").or_fail("the plugin was not given the database's URL")?;
    let mut config: Config = url.parse().or_fail("the database's URL cannot be read")?;
    config.connect_timeout(PATIENCE);
    Ok(Ledger { host, config, client: Mutex::default() })
}

impl Ledger {
    async fn client(&self) -> Result<Arc<Client>, TaskError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = in_time(self.config.connect(NoTls)).await?;
        tokio::spawn(connection);
        Ok(Arc::clone(slot.insert(Arc::new(client))))
    }

    /// A connection on which something has gone wrong is not used again.
    async fn give_up<T>(&self, client: &Arc<Client>, result: Result<T, TaskError>) -> Result<T, TaskError> {
        if result.is_err() {
            self.client.lock().await.take_if(|current| Arc::ptr_eq(current, client));
        }
        result
    }
}

async fn in_time<T, E: fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, TaskError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => bail!("the ledger cannot be written: {error}"),
        Err(_) => bail!("the ledger cannot be written: no answer within {PATIENCE:?}"),
    }
}

#[derive(Deserialize)]
struct Wishes {
    n: i64,
    #[serde(default)]
    sleep_ms: u64,
    /// Fails up to this attempt.
    #[serde(default)]
    fail_until: u32,
    /// Takes its process down.
    #[serde(default)]
    abort: bool,
}

/// Writes down that it began, takes its time, and writes down that it ended. A run that could not write has failed.
#[task]
async fn record(ctx: Context<Ledger>, wishes: Wishes) -> TaskResult {
    let ledger = ctx.state();
    let client = ledger.client().await?;
    let attempt = i32::try_from(ctx.attempt()).or_fail("the attempt is a small number")?;
    let pid = i32::try_from(process::id()).or_fail("a process id is a small number")?;
    let (job, queue, now) = (ctx.id(), ctx.queue(), now_us());
    let began = in_time(client.query_one(BEGAN, &[&job, &wishes.n, &attempt, &ledger.host, &queue, &pid, &now])).await;
    let run: i64 = ledger.give_up(&client, began).await?.get(0);
    if wishes.abort {
        process::abort();
    }
    tokio::time::sleep(Duration::from_millis(wishes.sleep_ms)).await;
    // The first one may be lost by now.
    let client = ledger.client().await?;
    let ended = in_time(client.execute(ENDED, &[&run, &now_us()])).await;
    ledger.give_up(&client, ended).await?;
    if ctx.attempt() <= wishes.fail_until {
        bail!("failed as asked");
    }
    Ok(())
}

/// By the clock that nobody sets, in microseconds.
fn now_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

plugin! {
    state: open,
    tasks: [record],
}
