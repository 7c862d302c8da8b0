//! Shows that this pool lives, and takes over from those that have died.
//!
//! While the pool's lock is not known to be held, others may take it for dead and run its jobs: it claims none, releases what
//! it has not begun, and what running jobs come to is stored only where nobody else has claimed them since.
//!
//! Who is dead? Nobody can see that of another process. What can be seen is whether somebody holds the lock of an owner, and a
//! connection may be lost without its host. So this waits for hosts to come back, and has to be sure that it waits for long enough:
//!
//! * A host notices at once that its connection has ended, tries to make a new one for as long as it takes, and rests for a second
//!   and a half at most before each try. If the server still keeps its lock for the old one, it has the server end that.
//! * Each owner is judged by itself, by looks that come a second apart. One that was seen to live is dead when it was missing in
//!   each look for two seconds. That another one is due then says nothing about it. See [`Missing`].
//! * An owner that has never been seen, which has jobs and no lock, was perhaps lost in an outage that is just over. It gets five
//!   seconds from the first look on, which is more than a living host needs. A host that is started again in the place of the one
//!   that died takes over from it after that.
//! * Whatever this pool knew of others was true of connections that are gone if its own was lost: it forgets all of it, stops a
//!   release that is under way, and releases nobody for 30 seconds. A release also looks for this pool's own lock on the server
//!   that carries it out, so that none comes through that was meant for another server, or for a time that is over.
//! * A pool that has just started does not know of an outage by itself. It learns of one from the server, as far as that was
//!   started or has recovered from a crash; from its own tries that failed; and from hosts that were there before: those that
//!   have lost their connections say so for 30 seconds, by a second lock.
//! * Time in which this process stood still is no time in which it has looked.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{backoff::Backoff, missing::Missing, pool::Pool};
use crate::{
    events::{Event, Refusal},
    queue::{LifeSign, Living, QueueError, Released, Unseen},
};

/// How often the pool sees who lives.
const LOOK: Duration = Duration::from_secs(1);
/// A pause of this length was a standstill.
const STANDSTILL: Duration = Duration::from_secs(3);
/// How long this rests at most before it tries to show life again, give or take a half.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// What the dead had sent may still have been under way when their jobs were looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// When the server was away, all of its connections were lost, and those who live need time to come back.
const AFTER_OUTAGE: Duration = Duration::from_secs(30);
/// Whatever else is seen, owners without a lock are looked for this often.
const NOW_AND_THEN: Duration = Duration::from_secs(10 * 60);
/// How often to see whether those who took this pool for dead have released its jobs.
const BEING_RELEASED: Duration = Duration::from_millis(100);
/// Nobody takes that many times as long for it.
const RELEASED_BY_NOW: u32 = 100;

/// Works until `stop` fires, which has to be after the last job's end.
pub(super) async fn show_life(pool: Arc<Pool>, stop: CancellationToken) {
    let showing = async {
        Watch::new(&pool).keep_on().await;
        // There is nothing to show, and still no end.
        std::future::pending::<()>().await;
    };
    // Each statement is whole by itself, so leaving at any point loses nothing.
    let _ = stop.run_until_cancelled(showing).await;
}

struct Watch<'a> {
    pool: &'a Arc<Pool>,
    backoff: Backoff,
    missing: Missing,
    /// When owners without a lock are looked for, those that were never seen among them.
    search_at: Instant,
    /// That was done since the connection was made.
    has_searched: bool,
    /// Nobody is released before this.
    not_before: Instant,
    /// The pool was seen to live before.
    was_alive: bool,
    /// Connections were lost, or could not be made, since it was.
    outage: bool,
    /// How often somebody else had the lock.
    taken: u32,
    /// The process of the server that had it for this pool.
    had_by: Option<i32>,
    /// It may have to wait for the database, which holds up no look.
    under_way: Option<AbortOnDropHandle<Done>>,
}

/// What was done beside the looks.
enum Done {
    /// `None`: it failed. The next look tells of the connection.
    Searched(Option<Unseen>),
    /// Of the owners with these keys.
    Released(Vec<i64>, Option<Released>),
}

/// Why the lock is not known to be held.
enum Lost {
    /// The connection is gone.
    Connection(QueueError),
    /// The lock is gone and the connection is not.
    Lock,
}

impl<'a> Watch<'a> {
    fn new(pool: &'a Arc<Pool>) -> Self {
        let backoff = Backoff::new("show that this host lives", pool.database().clone(), pool.events().clone());
        Self {
            pool,
            backoff: backoff.at_most(LONGEST_REST),
            missing: Missing::default(),
            search_at: Instant::now(),
            has_searched: false,
            not_before: Instant::now(),
            was_alive: false,
            outage: false,
            taken: 0,
            had_by: None,
            under_way: None,
        }
    }

    async fn keep_on(&mut self) {
        // Whoever was seen to live has claimed jobs in a name that others look for.
        while self.was_alive || self.taken < RELEASED_BY_NOW {
            let error = match self.pool.database().show_life(self.pool.identity().guarded_owner()).await {
                Ok(Some(sign)) => {
                    let lost = self.watch(&sign).await;
                    self.pool.lose_life();
                    match lost {
                        Lost::Connection(error) => error,
                        Lost::Lock if self.was_alive => {
                            self.outage = true;
                            sleep(BEING_RELEASED).await;
                            continue;
                        }
                        Lost::Lock => break,
                    }
                }
                Ok(None) => {
                    self.taken = self.taken.saturating_add(1);
                    if let Some(pid) = self.had_by {
                        // Should that fail, it is tried again.
                        let _ = self.pool.database().give_up_life_sign(self.pool.identity().guarded_owner(), pid).await;
                    }
                    sleep(if self.taken < RELEASED_BY_NOW { BEING_RELEASED } else { LOOK }).await;
                    continue;
                }
                Err(error) => error,
            };
            self.outage = true;
            self.backoff.wait(&error).await;
        }
        // The connection does not keep the lock, so nobody can see whether this pool lives: they are not to judge it by that.
        self.pool.events().emit(Event::LivenessUnavailable);
        self.pool.identity().revive_unguarded();
        self.pool.nudge();
    }

    /// Shows life for as long as that can be known, and looks for those who do not any more.
    async fn watch(&mut self, sign: &LifeSign) -> Lost {
        let lost = self.watch_others(sign).await;
        // All of that was seen on a connection that may have been lost together with theirs.
        (self.missing, self.under_way) = (Missing::default(), None);
        lost
    }

    async fn watch_others(&mut self, sign: &LifeSign) -> Lost {
        let mut living = match self.first_look(sign).await {
            Ok(Some(living)) => living,
            Ok(None) => return Lost::Lock,
            Err(error) => return Lost::Connection(error),
        };
        self.backoff.succeeded();
        let began = Instant::now();
        (self.search_at, self.has_searched) = (began, false);
        self.not_before =
            began + AFTER_OUTAGE.saturating_sub(if self.outage { Duration::ZERO } else { sign.server_up_for });
        let mut tells = self.outage;
        if tells && let Err(error) = sign.tell_of_outage(true).await {
            return Lost::Connection(error);
        }
        if self.was_alive {
            self.pool.claimed_set().suspect();
        }
        (self.was_alive, self.outage, self.taken, self.had_by) = (true, false, 0, Some(sign.pid));
        self.pool.identity().revive();
        self.pool.nudge();
        self.act();
        loop {
            self.pause(sign, began).await;
            let before = match sign.look().await {
                Ok(look) if look.with_ours => std::mem::replace(&mut living, look),
                Ok(_) => return Lost::Lock,
                Err(error) => return Lost::Connection(error),
            };
            self.missing.look(&before.owners, &living.owners);
            if living.outage {
                self.not_before = self.not_before.max(began + AFTER_OUTAGE);
            }
            if tells && began.elapsed() >= AFTER_OUTAGE {
                if let Err(error) = sign.tell_of_outage(false).await {
                    return Lost::Connection(error);
                }
                tells = false;
            }
            self.act();
        }
    }

    /// `None`: this connection, or it alone, does not have the lock. A pooler that gives each transaction another connection may
    /// give the one with the lock to others.
    async fn first_look(&self, sign: &LifeSign) -> Result<Option<Living>, QueueError> {
        let living = sign.look().await?;
        let session = self.pool.database().session().await?;
        let shared = session.holds_life_of(self.pool.identity().guarded_owner()).await?;
        Ok((living.with_ours && !shared).then_some(living))
    }

    /// Begins to release what the dead have, or to look for owners that nobody has seen, if it is time for that.
    fn act(&mut self) {
        let (pool, now) = (self.pool, Instant::now());
        if self.under_way.is_some() || pool.identity().works_once() || pool.identity().is_closing() {
            return;
        }
        let dead = if now >= self.not_before { self.missing.dead() } else { Vec::new() };
        let (database, ours) = (pool.database().clone(), pool.identity().guarded_owner().to_owned());
        // Whoever has to wait for a session would act on what was seen before.
        let session = async move { timeout(LOOK, database.session()).await.ok()?.ok() };
        let parts = pool.events().parts();
        let doing = if !dead.is_empty() {
            parts.spawn("release of dead hosts' jobs", async move {
                let released = match session.await {
                    Some(session) => session.release_dead(&ours, &dead).await.ok(),
                    None => None,
                };
                Done::Released(dead, released)
            })
        } else if now >= self.search_at {
            parts.spawn("search for dead hosts", async move {
                Done::Searched(match session.await {
                    Some(session) => session.unseen_owners().await.ok(),
                    None => None,
                })
            })
        } else {
            return;
        };
        self.under_way = Some(AbortOnDropHandle::new(doing));
    }

    /// Lets the time until the next look pass, or until the connection has ended.
    async fn pause(&mut self, sign: &LifeSign, began: Instant) {
        let paused = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(paused + LOOK) => break,
                () = sign.ended() => break,
                done = done(&mut self.under_way) => {
                    self.under_way = None;
                    self.heed(done, began);
                }
            }
        }
        if paused.elapsed() > STANDSTILL {
            self.missing.begin_anew();
        }
    }

    fn heed(&mut self, done: Option<Done>, began: Instant) {
        let now = Instant::now();
        match done {
            Some(Done::Searched(Some(unseen))) => {
                self.missing.found(&unseen.owners);
                let recovered =
                    unseen.since_recovery.map_or(Duration::ZERO, |since| AFTER_OUTAGE.saturating_sub(since));
                if began.elapsed() < AFTER_OUTAGE {
                    self.not_before = self.not_before.max(now + recovered);
                }
                let then = if self.has_searched {
                    NOW_AND_THEN.mul_f64(rand::rng().random_range(0.75..1.25))
                } else {
                    LOOK_AGAIN
                };
                (self.search_at, self.has_searched) = (now + then, true);
            }
            Some(Done::Released(owners, Some(released))) => {
                self.missing.released(&owners, released.has_skipped);
                for (id, error) in released.refused.iter().cloned() {
                    self.pool.events().emit(Event::Refused(Refusal::Lock { what: "release", id, error }));
                }
                if !released.owners.is_empty() {
                    // They are where they were, which may be behind what is known to be worked.
                    self.pool.database().reset_cursors();
                    self.pool.nudge();
                    self.pool.took_over(released.clone());
                    self.pool.events().emit(Event::TakenOver(released));
                }
            }
            Some(Done::Released(owners, None)) => self.missing.not_released(&owners),
            Some(Done::Searched(None)) | None => self.search_at = now + LOOK,
        }
    }
}

/// Waits for the end of what is under way; `None`: it has failed.
async fn done(under_way: &mut Option<AbortOnDropHandle<Done>>) -> Option<Done> {
    match under_way {
        Some(doing) => doing.await.ok(),
        None => std::future::pending().await,
    }
}

impl Pool {
    /// It may not be held any more.
    fn lose_life(&self) {
        self.identity().lose_life();
        // The next server may be another one.
        self.claimed_set().suspect();
        self.release_waiting();
        self.wakes().wake();
    }
}
