//! A transaction of the express lane, from its first jobs to its commit, and what is done when its connection is lost.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use super::Claimer;
use crate::{
    config::ForbiddenFlags,
    queue::{Conditions, Job, QueueError, ReleasedJob, Session, SettledApart, Settlement, beyond_encoding},
    work::{
        completion::{Batch, Completion},
        demand::{Claim, Lane},
        held_job::HeldJob,
        pool::Pool,
        registered::Registered,
        transaction::{BOUND, Kept, LockedJob, Transaction},
    },
};

/// A transaction that is open.
#[derive(Debug)]
pub(super) struct Open {
    transaction: Arc<Transaction>,
    /// Jobs for the marked lane, which they enter with the commit.
    aside: Vec<HeldJob>,
}

impl Open {
    /// Returns when it is to be ended.
    pub(super) async fn ended(&self) {
        self.transaction.ended().await;
    }
}

/// What has become of the jobs of a transaction by now.
#[derive(Debug, Default)]
struct Account {
    completions: Vec<Completion>,
    /// How many no slot has taken; they stay as they were.
    withdrawn: usize,
    /// These.
    left_behind: Vec<ReleasedJob>,
}

impl Account {
    /// What is to be stored. Those that have neither ended nor been withdrawn still run, or are to.
    fn settlement(&self, open: &Open) -> Settlement {
        let mut marked = Vec::new();
        if self.completions.len() + self.withdrawn < open.transaction.len() {
            let ended: HashSet<i64> = self.completions.iter().map(|completion| completion.claim.id).collect();
            let kept = open.transaction.kept().ids;
            marked.extend(kept.iter().filter(|id| !ended.contains(id)));
        }
        Batch::of(&self.completions).settlement(marked)
    }
}

/// Begins a transaction on the session and locks up to `limit` jobs in it.
pub(super) async fn claim(
    pool: &Pool,
    session: &Session,
    registered: &Registered,
    limit: usize,
    conditions: Conditions<'_>,
) -> Result<Vec<Job>, QueueError> {
    let locked = session.lock_jobs(&registered.tasks, limit, conditions).await;
    locked.inspect_err(|error| pool.claimed_set().failed(error))
}

impl Pool {
    /// These jobs of a transaction are marked now.
    fn keep_in_mind(&self, open: &Open, marked: &HashMap<i64, SystemTime>) {
        if !marked.is_empty() {
            let Kept { ids, attempts, .. } = open.transaction.kept();
            let claims = ids.into_iter().zip(attempts);
            self.claimed_set().add_express(claims.filter_map(|(id, attempt)| Some((id, attempt, *marked.get(&id)?))));
        }
    }
}

impl Claimer {
    /// A transaction is open in which these jobs are locked.
    pub(super) fn begun(&mut self, jobs: Vec<HeldJob>) {
        let short = jobs.first().map(|held| self.pool.speed().short_tasks(held.map)).unwrap_or_default();
        let (run, aside): (Vec<HeldJob>, _) = jobs.into_iter().partition(|held| fits_express(&held.job, &short));
        let all = run.iter().chain(&aside).map(|held| LockedJob::of(&held.job)).collect();
        let transaction = Arc::new(Transaction::new(all, run.len()));
        self.pool.running().begin_transaction(&transaction);
        self.pool.running().held().add(run, Some(Arc::clone(&transaction)));
        self.open = Some(Open { transaction, aside });
    }

    /// Ends a transaction, stores completions of marked jobs beside it, and claims on the same trip.
    pub(super) async fn settle_express(&mut self, open: Open, mut completions: Vec<Completion>, claim: Option<Claim>) {
        let pool = Arc::clone(&self.pool);
        let mut account = Account::default();
        self.bring_up_to_date(&open, &mut account);
        let settlement = account.settlement(&open);
        let Some(session) = self.session.take().filter(|session| !session.is_lost()) else {
            pool.completions().add_all(completions);
            return self.recover_express(open, account, None).await;
        };
        // The next transaction begins when nothing else is under way on its connection, and results do not wait for answers.
        let after = matches!(pool.settings().forbidden_flags, ForbiddenFlags::Asked(_));
        let mut claiming = pool.begin_claim(claim.filter(|_| !after && completions.is_empty()));
        let results = Batch::of(&completions);
        // The first of them sends all that it has, up to the commit, before the others send anything.
        let (settled, mut stored, claimed) = tokio::join!(
            biased;
            session.settle(pool.owner(), &settlement),
            results.store(&session, pool.owner()),
            self.claim(&session, claiming.as_ref()),
        );
        if stored.as_ref().is_err_and(QueueError::is_refusal) && !session.is_lost() {
            stored = self.store_apart(&session, &mut completions).await;
        }
        if settled.is_ok() && stored.is_ok() && claimed.is_ok() {
            self.session = Some(session);
        } else {
            session.discard();
        }
        if let Ok(marked) = &settled {
            // Those that were withdrawn can be claimed by anybody now, and this claim may have brought them.
            pool.keep_in_mind(&open, marked);
            pool.running().end_transaction(&open.transaction);
        }
        let claim_error = self.end_claim(claimed, &mut claiming);
        match settled {
            Ok(marked) => {
                self.store_backoff.succeeded();
                self.committed(open, account, marked);
                self.settle_marked(stored, completions).await;
            }
            Err(error) => {
                match stored {
                    Ok(late) => {
                        pool.claimed_set().remove(&completions);
                        self.settled(completions, &late, 0);
                    }
                    Err(_) => self.recover_marked(&mut completions),
                }
                self.recover_express(open, account, Some(error)).await;
            }
        }
        if let Some(error) = claim_error {
            self.claim_failed(&error).await;
        }
    }

    /// Takes the jobs away that no slot has taken, before it looks which of the others have ended.
    fn bring_up_to_date(&self, open: &Open, account: &mut Account) {
        let pool = &self.pool;
        let withdrawn = pool.running().held().withdraw(&open.transaction);
        if !withdrawn.is_empty() {
            if !pool.identity().is_closing() {
                pool.speed().stalled(BOUND);
            }
            account.left_behind.extend(withdrawn.iter().map(|held| ReleasedJob::of(&held.job)));
            let ids: Vec<i64> = withdrawn.iter().map(|held| held.job.id).collect();
            let refused = open.transaction.withdraw(&ids);
            account.withdrawn += ids.len() - refused.len();
            pool.completions().add_all(refused.into_iter().map(Completion::never_begun));
        }
        let mut completions = open.transaction.take_completions();
        let returned: Vec<i64> = completions
            .iter()
            .filter(|completion| completion.is_release())
            .map(|completion| completion.claim.id)
            .collect();
        if !returned.is_empty() {
            let refused: HashMap<i64, _> =
                open.transaction.withdraw(&returned).into_iter().map(|claim| (claim.id, claim)).collect();
            let of_refused = completions.extract_if(.., |completion| refused.contains_key(&completion.claim.id));
            pool.completions().add_all(of_refused.map(|completion| {
                let claim = refused[&completion.claim.id];
                completion.by(claim)
            }));
        }
        account.completions.append(&mut completions);
    }

    fn committed(&self, mut open: Open, account: Account, marked: HashMap<i64, SystemTime>) {
        let pool = &self.pool;
        pool.running().end_transaction(&open.transaction);
        open.aside.iter_mut().for_each(|held| held.job.locked_at = marked.get(&held.job.id).copied());
        let late = open.transaction.committed(&marked);
        if !late.is_empty() {
            pool.completions().add_all(late);
            pool.wakes().wake();
        }
        if !account.left_behind.is_empty() {
            pool.database().released(&account.left_behind);
            // Not sooner: a claim from before the commit has not seen them.
            pool.demand().jobs_available();
        }
        self.settled(account.completions, &HashSet::new(), account.withdrawn);
        pool.running().held().add(open.aside, None);
        pool.open_slots();
    }

    /// The connection was lost before the commit was heard of: on another one, locks those of the jobs that nobody else has
    /// taken, and ends as it was meant to. Tries for as long as it takes.
    async fn recover_express(&mut self, mut open: Open, mut account: Account, mut error: Option<QueueError>) {
        self.pool.database().reset_cursors();
        let (mut first, mut in_ascii) = (true, false);
        loop {
            // The connection may be the only one that was lost.
            if let Some(error) = error.as_ref().filter(|_| !std::mem::take(&mut first)) {
                self.store_backoff.wait(error).await;
            }
            self.bring_up_to_date(&open, &mut account);
            in_ascii |= error.as_ref().is_some_and(beyond_encoding);
            let apart = error.as_ref().is_some_and(|error| error.is_refusal() && !beyond_encoding(error));
            match self.end_once_more(&mut open, &mut account, in_ascii, apart).await {
                Ok(marked) => {
                    self.store_backoff.succeeded();
                    self.committed(open, account, marked);
                    // For as long as the transaction had its jobs, searches for orphaned claims passed them over, whoever had
                    // locked them.
                    return self.pool.claimed_set().suspect();
                }
                Err(again) => error = Some(again),
            }
        }
    }

    /// Holds back what the database has refused of a transaction, and gives what is marked now, and when it was.
    fn hold_refused(&self, open: &Open, account: &mut Account, settled: SettledApart) -> HashMap<i64, SystemTime> {
        let pool = &self.pool;
        let SettledApart { marked, refused, unmarked } = settled;
        let refused: HashMap<i64, QueueError> = refused.into_iter().collect();
        let unmarked: HashMap<i64, QueueError> = unmarked.into_iter().collect();
        let mut of_marked = Vec::new();
        let ended = |completion: &mut Completion| {
            marked.contains_key(&completion.claim.id) || unmarked.contains_key(&completion.claim.id)
        };
        for mut completion in account.completions.extract_if(.., ended) {
            let id = completion.claim.id;
            completion.claim.locked_at = marked.get(&id).copied();
            if let Some(error) = unmarked.get(&id) {
                pool.leave_result(&completion, error);
            } else if let Some(error) = refused.get(&id) {
                pool.hold_result(completion, error);
            } else {
                of_marked.push(completion);
            }
        }
        pool.completions().add_all(of_marked);
        for (id, error) in &unmarked {
            let held = open.aside.iter().find(|held| held.job.id == *id);
            pool.hold_claim(*id, held.map(|held| Arc::clone(&held.task)), error);
        }
        marked
    }

    async fn end_once_more(
        &mut self,
        open: &mut Open,
        account: &mut Account,
        in_ascii: bool,
        apart: bool,
    ) -> Result<HashMap<i64, SystemTime>, QueueError> {
        let session = self.connected(Lane::Express).await?;
        let Kept { ids, attempts, added_at } = open.transaction.kept();
        let again = match session.lock_again(self.pool.owner(), &ids, &attempts, &added_at).await {
            Ok(again) => again,
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        let mut settlement = account.settlement(open);
        // Where some are marked, the commit has come through, and nothing of this is left to do.
        let mut available: HashSet<i64> = again.available.into_iter().collect();
        settlement.done.retain(|id| available.contains(id));
        settlement.failed.retain(|failed| available.contains(&failed.claim.id));
        settlement.marked.retain(|id| available.contains(id));
        settlement.in_ascii = in_ascii;
        let settled = if apart {
            session.settle_apart(self.pool.owner(), &settlement).await
        } else {
            let marked = session.settle(self.pool.owner(), &settlement).await;
            marked.map(|marked| SettledApart { marked, ..SettledApart::default() })
        };
        let mut marked = match settled {
            Ok(settled) => {
                available.retain(|id| !settled.unmarked.iter().any(|(unmarked, _)| unmarked == id));
                self.hold_refused(open, account, settled)
            }
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        // Those that are marked already, by the lost commit or by the other claimer, may have ended since.
        let (mut of_marked, rest): (Vec<_>, Vec<_>) =
            account.completions.drain(..).partition(|completion| again.marked.contains_key(&completion.claim.id));
        account.completions = rest;
        of_marked
            .iter_mut()
            .for_each(|completion| completion.claim.locked_at = again.marked.get(&completion.claim.id).copied());
        self.pool.completions().add_all(of_marked);
        // What is neither marked now nor was before belongs to somebody else.
        marked.extend(again.marked);
        let owned = |id: &i64| available.contains(id) || marked.contains_key(id);
        open.transaction.disown(ids.into_iter().filter(|id| !owned(id)));
        let lost = open.aside.len();
        self.pool.keep_in_mind(open, &marked);
        open.aside.retain(|held| marked.contains_key(&held.job.id));
        self.pool.running().settled(lost - open.aside.len());
        self.session = Some(session);
        Ok(marked)
    }
}

/// Whether a job may be worked without being marked.
pub(super) fn fits_express(job: &Job, short_tasks: &[i32]) -> bool {
    job.key.is_none() && job.job_queue_id.is_none() && short_tasks.contains(&job.task_id)
}
