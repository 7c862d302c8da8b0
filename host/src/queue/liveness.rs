//! Which owners live: each holds an advisory lock for as long as its connection lasts, and Postgres ends the connection of a
//! process that has died. What the dead have locked is given to others.
//!
//! Whoever takes such a lock from a dead owner holds it while it releases that owner's jobs. So an owner that comes back, after
//! its connection was lost and nothing else, has its lock again before anybody releases its jobs, or not until all are released.
//!
//! Those who have lost their connections share a second lock for a while, from which others learn that there was an outage.

use std::{collections::HashSet, pin::pin, sync::LazyLock, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Database, QueueError, Session, crash_record::WITH_HOST_ENDED};

/// Prefix of the ids of owners that hold such a lock while they live. Others are never judged by it.
pub const SHOWS_LIFE: &str = "taskbay-live-";

/// An answer that takes so many of these will not come.
const ANSWER_WITHIN: u32 = 8;
const STEP: Duration = Duration::from_secs(1);

const WHAT: &str = "show that this host lives";

/// The server notices within about 14 seconds that a machine has vanished.
pub(super) const NOTICE_SOON: &str = "
set tcp_keepalives_idle = 5;
set tcp_keepalives_interval = 3;
set tcp_keepalives_count = 3;
set tcp_user_timeout = 14000";

/// $1 owner. All owners share the first key.
const LOCK: &str = "select pg_catalog.pg_try_advisory_lock(@liveness_lock@, pg_catalog.hashtext($1))";

/// $1 owner, $2 the process of the server that had its lock: ends that one's connection if it still has the lock.
const GIVE_UP: &str = "
select pg_catalog.pg_terminate_backend(held.pid)
from pg_catalog.pg_locks as held
where held.locktype = 'advisory'
  and held.classid = @liveness_lock@
  and held.objid = (pg_catalog.hashtext($1)::int8 & 4294967295)::oid
  and held.objsubid = 2
  and held.granted
  and held.pid = $2";

/// Shared by all whose connections were lost a short time ago.
const TELL: &str = "select pg_catalog.pg_try_advisory_lock_shared(@outage_lock@, 0)";
const TELL_NO_MORE: &str = "select pg_catalog.pg_advisory_unlock_shared(@outage_lock@, 0)";

/// The second keys of all owners that live, and which of them is held by this connection. The last column is true of the lock that
/// tells of an outage instead.
const LOOK: &str = "
select held.objid::int8, held.pid = pg_catalog.pg_backend_pid(), held.classid = @outage_lock@
from pg_catalog.pg_locks as held
where held.locktype = 'advisory'
  and held.classid in (@liveness_lock@, @outage_lock@)
  and held.objsubid = 2
  and held.granted
  and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())";

/// $1 owner: whether this connection has its lock.
const HOLDS: &str = "
select exists (
  select
  from pg_catalog.pg_locks as held
  where held.locktype = 'advisory'
    and held.classid = @liveness_lock@
    and held.objid = (pg_catalog.hashtext($1)::int8 & 4294967295)::oid
    and held.objsubid = 2
    and held.pid = pg_catalog.pg_backend_pid()
)";

/// The second keys of owners that show their life, as `living`.
macro_rules! living {
    () => {
        "living as materialized (
    select held.objid as key
    from pg_catalog.pg_locks as held
    where held.locktype = 'advisory'
      and held.classid = @liveness_lock@
      and held.objsubid = 2
      and held.granted
      and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  )"
    };
}
pub(super) use living;

/// Who has something locked and shows its life otherwise.
const OWNERS: &str = "select locked_by as name
from @schema@._private_jobs
where locked_at is not null and locked_by like @live_owners@
union
select locked_by
from @schema@._private_job_queues
where locked_at is not null and locked_by like @live_owners@";

/// Of such an owner: nobody holds, or waits for, the lock by which it shows its life.
const IS_UNSEEN: &str = "not exists (
  select
  from pg_catalog.pg_locks as held
  where held.locktype = 'advisory'
    and held.classid = @liveness_lock@
    and held.objid = (pg_catalog.hashtext(owner.name)::int8 & 4294967295)::oid
    and held.objsubid = 2
    and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
)";

fn of_owners(text: &str) -> String {
    text.replace("@owners@", OWNERS).replace("@unseen@", IS_UNSEEN)
}

/// The second keys of owners that have something locked and whose locks nobody holds. And since when the server has been up, or has
/// recovered from a crash: then it forgets its statistics.
static UNSEEN: LazyLock<String> = LazyLock::new(|| of_owners(UNSEEN_TEXT));

const UNSEEN_TEXT: &str = "
select distinct
  pg_catalog.hashtext(owner.name)::int8 & 4294967295,
  extract(epoch from clock_timestamp() - greatest(
    pg_catalog.pg_postmaster_start_time(),
    pg_catalog.pg_stat_get_bgwriter_stat_reset_time()
  ))::float8
from (
  @owners@
) as owner
where @unseen@";

/// $1 the owner who does this, and must live on this server, $2 second keys of those that are dead.
///
/// The jobs keep their place, and the attempt counts: a job that ends its host must come to an end itself. Everybody is told of them.
/// Rows that somebody else has locked are left for later, for that may take long.
static RELEASE: LazyLock<String> = LazyLock::new(|| of_owners(RELEASE_TEXT).replace("@flags@", WITH_HOST_ENDED));

const RELEASE_TEXT: &str = "
with
  owner as materialized (
    @owners@
  ),
  silent as materialized (
    select name
    from owner
    where pg_catalog.hashtext(name)::int8 & 4294967295 = any ($2)
      and exists (
        select
        from pg_catalog.pg_locks as held
        where held.locktype = 'advisory'
          and held.classid = @liveness_lock@
          and held.objid = (pg_catalog.hashtext($1)::int8 & 4294967295)::oid
          and held.objsubid = 2
          and held.granted
          and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
      )
      and @unseen@
  ),
  dead as materialized (
    select name
    from silent
    where pg_catalog.pg_try_advisory_xact_lock(@liveness_lock@, pg_catalog.hashtext(name))
  ),
  job_held as materialized (
    select job.id, dead.name
    from dead join @schema@._private_jobs as job on job.locked_by = dead.name
    where $3::int8[] is null or job.id = any ($3)
  ),
  job_free as materialized (
    select job.id, held.name
    from job_held as held join @schema@._private_jobs as job on job.id = held.id and job.locked_by = held.name
    for update of job skip locked
  ),
  queue_held as materialized (
    select queue.id, dead.name
    from dead join @schema@._private_job_queues as queue on queue.locked_by = dead.name
  ),
  queue_free as materialized (
    select queue.id, held.name
    from queue_held as held join @schema@._private_job_queues as queue on queue.id = held.id and queue.locked_by = held.name
    for update of queue skip locked
  ),
  released as (
    update @schema@._private_jobs as job
    set
      last_error = pg_catalog.format('the host %s ended without a word while it had this job', job_free.name),
      flags = @flags@,
      locked_by = null,
      locked_at = null
    from job_free
    where job.id = job_free.id
    returning job.id
  ),
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from queue_free
    where queue.id = queue_free.id
    returning queue.id
  ),
  told as (
    select pg_catalog.pg_notify('jobs:insert', pg_catalog.format('{\"r\":%s,\"count\":%s}', random(), counted.jobs))
    from (select count(*) as jobs from released) as counted
    where counted.jobs > 0
  )
select
  (
    select coalesce(array_agg(distinct name), '{}')
    from (select name from job_free union all select name from queue_free) as free
  ),
  (select count(*) from released),
  (select count(*) from freed),
  (select count(*) from job_held) + (select count(*) from queue_held)
    > (select count(*) from job_free) + (select count(*) from queue_free),
  (select count(*) from told)";

/// What was released, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    pub owners: Vec<String>,
    pub jobs: i64,
    pub queues: i64,
    /// Something was left because somebody else had its row locked.
    pub has_skipped: bool,
    /// Jobs that stay locked because the database refuses to release them, and what it says.
    pub refused: Vec<(i64, String)>,
}

/// Owners that have something locked, and no lock of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unseen {
    /// A number for each of them.
    pub owners: Vec<i64>,
    /// How long ago the server was started, or recovered from a crash.
    pub since_recovery: Option<Duration>,
}

/// What one look has shown.
#[derive(Debug)]
pub struct Living {
    /// A number for each owner that lives.
    pub owners: HashSet<i64>,
    /// This connection's own lock is among theirs. If not, it was lost although the connection was not, as it is behind a
    /// pooler that gives each transaction another connection.
    pub with_ours: bool,
    /// Somebody who lives has lost its connection a short time ago.
    pub outage: bool,
}

/// The lock of an owner that lives, on a connection of its own. Dropping it ends both.
#[derive(Debug)]
pub struct LifeSign {
    client: Client,
    database: Database,
    _running: AbortOnDropHandle<()>,
    ended: CancellationToken,
    /// How long the server has been up.
    pub server_up_for: Duration,
    /// The process of the server at the other end.
    pub pid: i32,
}

impl Database {
    /// Connects and takes the lock of `owner`. `None`: somebody has taken this owner for dead, and is releasing its jobs.
    pub async fn show_life(&self, owner: &str) -> Result<Option<LifeSign>, QueueError> {
        let (client, connection) = self.connect().await?;
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let running = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ends = ends;
            // How it ended is told to whoever uses it next.
            let _ = connection.await;
        }));
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        const UP: &str = "
select
  extract(epoch from clock_timestamp() - pg_catalog.pg_postmaster_start_time())::float8,
  pg_catalog.pg_backend_pid()";
        let lock = self.render(LOCK);
        let owner: [(&(dyn ToSql + Sync), Type); 1] = [(&owner, Type::TEXT)];
        let (set, stays, locked, up) = tokio::join!(
            biased;
            client.batch_execute(NOTICE_SOON),
            client.query_typed(self.limits(), &[]),
            client.query_typed(&lock, &owner),
            client.query_typed(UP, &[]),
        );
        set.map_err(failed)?;
        stays.map_err(failed)?;
        let locked: bool = locked.and_then(|rows| rows[0].try_get(0)).map_err(failed)?;
        let up = up.map_err(failed)?;
        let pid = up[0].try_get(1).map_err(failed)?;
        let server_up_for = Duration::try_from_secs_f64(up[0].try_get(0).map_err(failed)?).unwrap_or_default();
        Ok(locked.then_some(LifeSign { database: self.clone(), client, _running: running, ended, server_up_for, pid }))
    }

    /// Has the server end the connection on which `owner` showed life before, by its process. The server may not have noticed that
    /// it leads nowhere any more, and keeps the lock for it until then.
    pub async fn give_up_life_sign(&self, owner: &str, pid: i32) -> Result<(), QueueError> {
        let session = self.session().await?;
        session.query(WHAT, GIVE_UP, &[(&owner, Type::TEXT), (&pid, Type::INT4)]).await.map(drop)
    }
}

impl LifeSign {
    /// Sees who lives. An error means that nobody knows whether this owner does.
    pub async fn look(&self) -> Result<Living, QueueError> {
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let mut living = Living { owners: HashSet::new(), with_ours: false, outage: false };
        for row in self.ask(LOOK).await? {
            if row.try_get(2).map_err(failed)? {
                living.outage = true;
                continue;
            }
            living.owners.insert(row.try_get(0).map_err(failed)?);
            living.with_ours |= row.try_get::<_, bool>(1).map_err(failed)?;
        }
        Ok(living)
    }

    /// Tells those who look that connections were lost, or no more.
    pub async fn tell_of_outage(&self, lately: bool) -> Result<(), QueueError> {
        self.ask(if lately { TELL } else { TELL_NO_MORE }).await.map(drop)
    }

    async fn ask(&self, sql: &'static str) -> Result<Vec<Row>, QueueError> {
        let text = self.database.render(sql);
        let Some(answer) = while_this_runs(self.client.query_typed(&text, &[])).await else {
            self.database.found_silent();
            return Err(no_answer());
        };
        answer.map_err(|error| QueueError::statement(WHAT, &error))
    }

    /// Returns when the connection has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

fn no_answer() -> QueueError {
    let reason = format!("the server has not answered for {} s", (STEP * ANSWER_WITHIN).as_secs());
    QueueError::Statement { what: WHAT, reason, code: None, lost: true }
}

/// `None`: there was no answer in time. Time in which this process stood still does not count: what came meanwhile has not been
/// read yet, and whoever ended the connection for that would be taken for dead.
async fn while_this_runs<T>(answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(answer);
    let mut steps = 0;
    while steps < ANSWER_WITHIN {
        let began = Instant::now();
        if let Ok(answer) = timeout(STEP, &mut answer).await {
            return Some(answer);
        }
        steps += u32::from(began.elapsed() < STEP * 2);
    }
    None
}

impl Session {
    /// Whether this connection has the lock of `owner`, which was taken on another one.
    pub async fn holds_life_of(&self, owner: &str) -> Result<bool, QueueError> {
        // Asked once, so that it is not worth preparing.
        let owner: [(&(dyn ToSql + Sync), Type); 1] = [(&owner, Type::TEXT)];
        let holds = self.database().render(HOLDS);
        let asked = while_this_runs(self.client().query_typed(&holds, &owner)).await;
        let Some(asked) = asked else {
            self.database().found_silent();
            return Err(no_answer());
        };
        let rows = asked.map_err(|error| QueueError::statement(WHAT, &error))?;
        rows[0].try_get(0).map_err(|error| QueueError::statement(WHAT, &error))
    }

    /// Looks for owners that have something locked, and no lock of their own.
    pub async fn unseen_owners(&self) -> Result<Unseen, QueueError> {
        const WHAT: &str = "look for hosts that have died";
        let rows = self.query(WHAT, &UNSEEN, &[]).await?;
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let mut unseen = Unseen::default();
        for row in rows {
            unseen.owners.push(row.try_get(0).map_err(failed)?);
            unseen.since_recovery = Duration::try_from_secs_f64(row.try_get(1).map_err(failed)?).ok();
        }
        Ok(unseen)
    }

    /// Releases the jobs and queues of those owners with these `keys` that do not show life, if `ours` does. The jobs go elsewhere
    /// with one attempt less; those that had none left have failed.
    ///
    /// It is not tried again by itself: what is known of them is only true for a moment.
    pub async fn release_dead(&self, ours: &str, keys: &[i64]) -> Result<Released, QueueError> {
        match self.release(ours, keys, None).await {
            Err(error) if error.is_refusal() => self.release_around(ours, keys).await,
            whole => whole,
        }
    }

    pub(super) async fn release(&self, ours: &str, keys: &[i64], ids: Option<&[i64]>) -> Result<Released, QueueError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&ours, Type::TEXT), (&keys, Type::INT8_ARRAY), (&ids, Type::INT8_ARRAY)];
        let rows = self.query_as_part(RELEASING, &RELEASE, &parameters).await?;
        let failed = |error: tokio_postgres::Error| QueueError::statement(RELEASING, &error);
        let Some(row) = rows.first() else { return Ok(Released::default()) };
        Ok(Released {
            owners: row.try_get(0).map_err(failed)?,
            jobs: row.try_get(1).map_err(failed)?,
            queues: row.try_get(2).map_err(failed)?,
            has_skipped: row.try_get(3).map_err(failed)?,
            refused: Vec::new(),
        })
    }
}

pub(super) const RELEASING: &str = "release the jobs of hosts that have died";
