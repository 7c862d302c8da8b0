//! Installs the schema in a fresh database, upgrades one when told to, and refuses those that cannot be worked.
//!
//! A database that is found at a revision that can be worked is left exactly as it is: workers of other programs may live
//! on it that do not survive the next revision. Nothing above revision 20 is ever written.

mod advance;
mod error;
mod look;
mod revisions;
mod workers;

use std::time::{Duration, Instant};

use self::{
    advance::{Undone, advance},
    look::{Found, is_being_migrated, look},
};
use crate::queue::{Database, QueueError, Session};

pub use error::MigrateError;
pub use revisions::{NEWEST, OLDEST, Step};
pub use workers::{Locks, Workers};

/// How long an old revision has to stand still before it is taken for an old database, not for one that another program
/// is installing at this moment.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How often the same revision is tried to be left while another program is in the way.
const ROUNDS: usize = 20;

/// The revision of a database that can be worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    pub number: i32,
    /// The newest revision that programs have to know to work here.
    pub newest_breaking: i32,
    /// It was installed just now, by us.
    pub installed: bool,
}

impl Revision {
    /// What to tell people of it, if anything.
    pub fn warning(&self) -> Option<String> {
        (self.number > NEWEST).then(|| {
            format!(
                "the database is at revision {}, newer than {NEWEST}, the newest that this program knows; \
                 nothing in it is marked as breaking, so work goes on, but a newer version of this program is due",
                self.number
            )
        })
    }

    /// That of a database that was brought there.
    fn reached(number: i32, installed: bool) -> Self {
        let newest_breaking =
            revisions::steps(0, number).filter(|step| step.breaking).last().map_or(0, |step| step.number);
        Self { number, newest_breaking, installed }
    }
}

/// What [`upgrade`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade {
    /// The revision that the database was at; `None` if there was no schema.
    pub from: Option<i32>,
    /// That which it is at; the same if there was nothing to do.
    pub revision: Revision,
}

/// What [`upgrade`] would do.
#[derive(Debug)]
pub struct Plan {
    /// The revision that the database is at; `None` if there is no schema.
    pub from: Option<i32>,
    /// What would be done, in order; empty if there is nothing to do.
    pub steps: Vec<&'static Step>,
    /// Who is at work at this moment.
    pub workers: Workers,
    /// What becomes of workers of older programs, if it is known that they do not live through it.
    pub consequence: Option<&'static str>,
    /// Why it would be refused at this moment.
    pub refusal: Option<MigrateError>,
}

/// Makes sure that the database can be worked: installs the schema where there is none, and refuses what this program does
/// not know. A schema that is there is left as it is, whatever its revision. Any number of programs may do it at once.
pub async fn prepare(database: &Database) -> Result<Revision, MigrateError> {
    let mut session = database.session().await?;
    let mut clashes = Clashes::default();
    let mut standstill = Standstill { number: 0, since: Instant::now() };
    loop {
        let found = look(&session).await?;
        found.check()?;
        match found.revision {
            None => {
                if clashes.advance(&mut session, &found, NEWEST).await? {
                    return Ok(Revision::reached(NEWEST, true));
                }
            }
            Some((number, _)) if number < OLDEST => {
                if !standstill.goes_on(number)
                    && !is_being_migrated(&session).await?
                    // The other one's transaction may have ended between the two looks.
                    && look(&session).await?.revision == found.revision
                {
                    return Err(MigrateError::TooOld { database: found.database, schema: found.schema, number });
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some((number, newest_breaking)) => return Ok(Revision { number, newest_breaking, installed: false }),
        }
    }
}

/// Brings a database to a revision from [`OLDEST`] to [`NEWEST`], whatever it is found at: without a schema, at any earlier
/// revision of graphile-worker, or there already. Jobs keep all that they have, and their ids; locks older than four hours
/// are dropped on the way from revisions before 11. Each call does all or nothing. A database that is further is left as it
/// is. Any number of programs may do it at once, also with other targets; then the furthest wins.
///
/// Programs that do not know the new revision cannot work on it afterwards: see [`plan`].
pub async fn upgrade(database: &Database, to: i32) -> Result<Upgrade, MigrateError> {
    let to = to.clamp(OLDEST, NEWEST);
    let mut session = database.session().await?;
    let mut clashes = Clashes::default();
    loop {
        let found = look(&session).await?;
        found.check()?;
        let from = found.revision.map(|(number, _)| number);
        match found.revision {
            Some((number, newest_breaking)) if number >= to => {
                return Ok(Upgrade { from, revision: Revision { number, newest_breaking, installed: false } });
            }
            _ => {}
        }
        found.check_owner()?;
        if clashes.advance(&mut session, &found, to).await? {
            return Ok(Upgrade { from, revision: Revision::reached(to, from.is_none()) });
        }
    }
}

/// What [`upgrade`] would do to a database as it is at this moment, and to whom. Changes nothing.
pub async fn plan(database: &Database, to: i32) -> Result<Plan, MigrateError> {
    let to = to.clamp(OLDEST, NEWEST);
    let session = database.session().await?;
    let found = look(&session).await?;
    found.check()?;
    let number = found.number();
    let read = |error: tokio_postgres::Error| QueueError::statement("look for workers", &error);
    let mut workers =
        Workers { locks: Locks::default(), listeners: workers::listeners(session.client()).await.map_err(read)? };
    let mut refusal = None;
    if let Some((1..NEWEST, _)) = found.revision {
        refusal = found.check_owner().err();
        // Whoever is not the owner may not read the table.
        if refusal.is_none() {
            let table = workers::locked_table(number);
            workers.locks = workers::locks(session.client(), &found.schema, number, table).await.map_err(read)?;
        }
        if number <= 10 && workers.locks.jobs() > 0 {
            let (database, schema) = (found.database.clone(), found.schema.clone());
            refusal = Some(MigrateError::Locked { database, schema, locks: workers.locks.clone() });
        }
    }
    Ok(Plan {
        from: found.revision.map(|(number, _)| number),
        steps: revisions::steps(number, to).collect(),
        workers,
        consequence: revisions::consequence(number, to),
        refusal,
    })
}

/// The revision as it is, also one that cannot be worked; `None` where the schema is not installed.
pub async fn current(database: &Database) -> Result<Option<Revision>, MigrateError> {
    let session = database.session().await?;
    let found = look(&session).await?;
    Ok(found.revision.map(|(number, newest_breaking)| Revision { number, newest_breaking, installed: false }))
}

/// How often another program was in the way at the same revision.
#[derive(Default)]
struct Clashes {
    number: i32,
    count: usize,
}

impl Clashes {
    /// Whether the database was brought to a revision; if not, another program was in the way, and has to be looked at again.
    async fn advance(&mut self, session: &mut Session, found: &Found, to: i32) -> Result<bool, MigrateError> {
        match advance(session, found, to).await {
            Ok(()) => Ok(true),
            Err(Undone::Refused(error)) => Err(error),
            Err(Undone::InTheWay(error)) => {
                if self.number != found.number() {
                    *self = Self { number: found.number(), count: 0 };
                }
                self.count += 1;
                if self.count == ROUNDS {
                    return Err(found.in_the_way(ROUNDS, &error));
                }
                // The other one's transaction is over, or about to be.
                tokio::time::sleep(Duration::from_millis(20 + u64::from(rand::random::<u8>()))).await;
                Ok(false)
            }
        }
    }
}

/// Whether an old revision moves.
struct Standstill {
    number: i32,
    since: Instant,
}

impl Standstill {
    fn goes_on(&mut self, number: i32) -> bool {
        if self.number != number {
            *self = Self { number, since: Instant::now() };
        }
        self.since.elapsed() < STANDSTILL
    }
}
