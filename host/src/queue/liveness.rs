//! Which owners live: each holds an advisory lock for as long as its connection lasts, and Postgres ends the connection of a
//! process that has died. What the dead have locked is given to others.
//!
//! Whoever takes such a lock from a dead owner holds it while it releases that owner's jobs. So an owner that comes back, after
//! its connection was lost and nothing else, has its lock again before anybody releases its jobs, or not until all are released.
//!
//! Those who have lost their connections share a second lock for a while, from which others learn that there was an outage.

use std::{
    collections::HashSet,
    pin::pin,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Database, QueueError, Session, connection::NOTICE_SOON};

/// An answer that takes so many of these will not come.
const ANSWER_WITHIN: u32 = 8;
const STEP: Duration = Duration::from_secs(1);

const WHAT: &str = "show that this host lives";

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

/// The second keys of all owners that live, and which of them is held by this connection. The third column is true of the lock that
/// tells of an outage instead. The last one is the server's time in microseconds.
const LOOK: &str = "
select
  held.objid::int8,
  held.pid = pg_catalog.pg_backend_pid(),
  held.classid = @outage_lock@,
  (extract(epoch from clock_timestamp()) * 1000000)::int8
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
        let asked = async {
            tokio::join!(
                biased;
                client.batch_execute(NOTICE_SOON),
                client.query_typed(self.limits(), &[]),
                client.query_typed(&lock, &owner),
                client.query_typed(UP, &[]),
            )
        };
        let (set, stays, locked, up) = self.answer_in_time(asked).await?;
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

    /// Without an answer in time, the server is found not to answer anybody.
    async fn answer_in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, QueueError> {
        while_this_runs(answer).await.ok_or_else(|| {
            self.health().found_silent();
            let reason = format!("the server has not answered for {} s", (STEP * ANSWER_WITHIN).as_secs());
            QueueError::Statement { what: WHAT, reason, code: None, lost: true }
        })
    }
}

impl LifeSign {
    /// Sees who lives. An error means that nobody knows whether this owner does.
    pub async fn look(&self) -> Result<Living, QueueError> {
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let mut living = Living { owners: HashSet::new(), with_ours: false, outage: false };
        let asked = SystemTime::now();
        let rows = self.ask(LOOK).await?;
        if let Some(row) = rows.first() {
            self.database.health().told_time(row.try_get(3).map_err(failed)?, asked, SystemTime::now());
        }
        for row in rows {
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
        let answer = self.database.answer_in_time(self.client.query_typed(&text, &[])).await?;
        answer.map_err(|error| QueueError::statement(WHAT, &error))
    }

    /// Returns when the connection has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
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
        let asked = self.database().answer_in_time(self.client().query_typed(&holds, &owner)).await?;
        let rows = asked.map_err(|error| QueueError::statement(WHAT, &error))?;
        rows[0].try_get(0).map_err(|error| QueueError::statement(WHAT, &error))
    }
}
