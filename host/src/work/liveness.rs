//! Shows that this pool lives, and takes over from those that do not any more.
//!
//! While the pool's lock is not known to be held, others may take it for dead and run its jobs: it claims none, gives back what
//! it has not begun, and what running jobs come to is stored only where nobody else has claimed them since.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    backoff::Backoff,
    pool::{Mode, Pool},
};
use crate::{
    events::Event,
    queue::{LifeSign, Living, QueueError, Released},
};

/// How often the pool sees who lives.
const LOOK: Duration = Duration::from_secs(1);
/// Who has not come back after this long is dead.
const CONFIRM: Duration = Duration::from_secs(2);
/// What the dead had sent may still have been under way.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// When the server was away, all of its connections were lost, and those who live need time to come back.
const AFTER_OUTAGE: Duration = Duration::from_secs(30);
/// Whatever else is seen, the dead are looked for this often.
const NOW_AND_THEN: Duration = Duration::from_secs(10 * 60);
/// How often to see whether those who took this pool for dead have released its jobs.
const BEING_RELEASED: Duration = Duration::from_millis(100);
/// Nobody takes that many times as long for it.
const RELEASED_BY_NOW: u32 = 100;

/// Works until `stop` fires, which has to be after the last job's end.
pub(super) async fn show_life(pool: Arc<Pool>, stop: CancellationToken) {
    // Each statement is whole by itself, so leaving at any point loses nothing.
    let _ = stop.run_until_cancelled(Watch::new(&pool).keep_on()).await;
}

struct Watch<'a> {
    pool: &'a Arc<Pool>,
    backoff: Backoff,
    /// When what the dead have is released.
    due: Vec<Instant>,
    /// Not before this.
    not_before: Instant,
    /// Whether the lock was held before.
    was_alive: bool,
    /// How often somebody else had it.
    taken: u32,
    /// What the dead have is being released. Whoever has one of those rows locked holds that up, and nothing else.
    releasing: Option<AbortOnDropHandle<Result<Released, QueueError>>>,
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
        let backoff = Backoff::new("show that this host lives", pool.database.clone(), pool.events.clone());
        Self { pool, backoff, due: Vec::new(), not_before: Instant::now(), was_alive: false, taken: 0, releasing: None }
    }

    async fn keep_on(&mut self) {
        while self.taken < RELEASED_BY_NOW {
            match self.pool.database.show_life(self.pool.guarded_owner()).await {
                Ok(Some(sign)) => {
                    let lost = self.watch(&sign).await;
                    self.pool.lose_life();
                    match lost {
                        Lost::Connection(error) => self.backoff.wait(&error).await,
                        Lost::Lock if self.was_alive => sleep(BEING_RELEASED).await,
                        Lost::Lock => break,
                    }
                }
                Ok(None) => {
                    self.taken += 1;
                    sleep(BEING_RELEASED).await;
                }
                Err(error) => self.backoff.wait(&error).await,
            }
        }
        // The connection does not keep the lock, so nobody can see whether this pool lives: they are not to judge it by that.
        self.pool.events.emit(Event::LivenessUnavailable);
        self.pool.live(self.pool.unguarded_owner());
    }

    /// Shows life for as long as that can be known, and looks for those who do not any more.
    async fn watch(&mut self, sign: &LifeSign) -> Lost {
        let mut living = match self.first_look(sign).await {
            Ok(Some(living)) => living,
            Ok(None) => return Lost::Lock,
            Err(error) => return Lost::Connection(error),
        };
        self.backoff.succeeded();
        let now = Instant::now();
        let outage = if self.was_alive { AFTER_OUTAGE } else { AFTER_OUTAGE.saturating_sub(sign.server_up_for) };
        (self.was_alive, self.taken, self.not_before) = (true, 0, now + outage);
        self.look_for_dead(now);
        self.pool.live(self.pool.guarded_owner().to_owned());
        loop {
            self.pause().await;
            let now = Instant::now();
            let known = match sign.look().await {
                Ok(look) if look.with_ours => std::mem::replace(&mut living, look),
                Ok(_) => return Lost::Lock,
                Err(error) => return Lost::Connection(error),
            };
            if !known.owners.is_subset(&living.owners) {
                self.look_for_dead(now);
            }
            self.release(now);
        }
    }

    /// `None`: this connection, or it alone, does not have the lock. A pooler that gives each transaction another connection may
    /// give the one with the lock to others.
    async fn first_look(&self, sign: &LifeSign) -> Result<Option<Living>, QueueError> {
        let living = sign.look().await?;
        self.pool.warm.cancelled().await;
        let lent = self.pool.lent().take();
        let is_lent = lent.is_some();
        let session = match lent {
            Some(session) => session,
            None => self.pool.database.session().await?,
        };
        let shared = session.holds_life_of(self.pool.guarded_owner()).await?;
        if is_lent {
            *self.pool.lent() = Some(session);
        }
        Ok((living.with_ours && !shared).then_some(living))
    }

    /// Somebody may have died.
    fn look_for_dead(&mut self, now: Instant) {
        self.due.extend([CONFIRM, LOOK_AGAIN].map(|wait| self.not_before.max(now + wait)));
    }

    /// Begins to release what the dead have, if it is time for that.
    fn release(&mut self, now: Instant) {
        let pool = self.pool;
        let is_due = self.releasing.is_none() && self.due.iter().any(|due| *due <= now);
        if !is_due || pool.mode == Mode::Once || pool.closing.is_cancelled() {
            return;
        }
        self.due.retain(|due| *due > now);
        if self.due.is_empty() {
            self.due.push(now + NOW_AND_THEN.mul_f64(rand::rng().random_range(0.75..1.25)));
        }
        let database = pool.database.clone();
        let released = async move { database.session().await?.release_dead().await };
        self.releasing = Some(AbortOnDropHandle::new(tokio::spawn(released)));
    }

    /// Lets the time until the next look pass, which comes sooner if something was released.
    async fn pause(&mut self) {
        let Some(releasing) = &mut self.releasing else { return sleep(LOOK).await };
        let Ok(released) = timeout(LOOK, releasing).await else { return };
        self.releasing = None;
        match released {
            Ok(Ok(released)) if released.owners.is_empty() => {}
            Ok(Ok(released)) => {
                // They are where they were, which may be behind what is known to be worked.
                self.pool.database.look_everywhere();
                self.pool.nudge();
                self.pool.events.emit(Event::TakenOver(released));
            }
            // The next look tells of the connection, and this is tried again.
            Ok(Err(_)) | Err(_) => self.due.push(Instant::now() + CONFIRM),
        }
    }
}

impl Pool {
    /// The lock is held: jobs may be claimed, in this name.
    fn live(self: &Arc<Self>, owner: String) {
        let _ = self.owner.set(owner);
        self.alive.store(true, Ordering::Release);
        self.nudge();
    }

    /// It may not be held any more.
    fn lose_life(&self) {
        self.alive.store(false, Ordering::Release);
        self.give_back_what_waits();
        self.wake();
    }
}
