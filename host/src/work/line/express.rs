//! A transaction of the express lane, from its first jobs to its commit, and what is done when its connection is lost.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use super::{Lane, Line, claim::fits_express};
use crate::{
    config::ForbiddenFlags,
    queue::{QueueError, ReleasedJob, SettledApart, Settlement, beyond_encoding},
    work::{
        express_batch::{BOUND, ExpressBatch},
        held::HeldJob,
        pool::Pool,
        verdict::{Results, Verdict},
    },
};

/// A transaction that is open.
#[derive(Debug)]
pub(super) struct Open {
    batch: Arc<ExpressBatch>,
    /// Jobs for the marked lane, which they enter with the commit.
    aside: Vec<HeldJob>,
}

impl Open {
    /// Returns when it is to be ended.
    pub(super) async fn ended(&self) {
        self.batch.ended().await;
    }
}

/// What has become of the jobs of a transaction by now.
#[derive(Debug, Default)]
struct Account {
    verdicts: Vec<Verdict>,
    /// How many no slot has taken; they stay as they were.
    withdrawn: usize,
    /// These.
    left_behind: Vec<ReleasedJob>,
}

impl Account {
    /// What is to be stored. Those that have neither ended nor been withdrawn still run, or are to.
    fn settlement(&self, open: &Open) -> Settlement {
        let mut settlement = Settlement::default();
        for verdict in &self.verdicts {
            verdict.settle(&mut settlement);
        }
        if self.verdicts.len() + self.withdrawn < open.batch.len() {
            let ended: HashSet<i64> = self.verdicts.iter().map(|verdict| verdict.claim.id).collect();
            let (kept, _) = open.batch.kept();
            settlement.marked.extend(kept.iter().filter(|id| !ended.contains(id)));
        }
        settlement
    }
}

impl Pool {
    /// These jobs of a transaction are marked now.
    fn keep_in_mind(&self, open: &Open, marked: &HashMap<i64, SystemTime>) {
        if !marked.is_empty() {
            let (ids, attempts) = open.batch.kept();
            let claims = ids.into_iter().zip(attempts);
            self.known.add_express(claims.filter_map(|(id, attempt)| Some((id, attempt, *marked.get(&id)?))));
        }
    }
}

impl Line {
    /// A transaction is open in which these jobs are locked.
    pub(super) fn begun(&mut self, jobs: Vec<HeldJob>) {
        let short = jobs.first().map(|held| self.pool.speed.short_tasks(held.map)).unwrap_or_default();
        let (run, aside): (Vec<HeldJob>, _) = jobs.into_iter().partition(|held| fits_express(&held.job, &short));
        let names = |held: &HeldJob| (held.job.id, held.job.attempts, held.job.created_at);
        let all = run.iter().chain(&aside).map(names).collect();
        let batch = Arc::new(ExpressBatch::new(all, run.len()));
        self.pool.opened(&batch);
        self.pool.held.add(run, Some(Arc::clone(&batch)));
        self.open = Some(Open { batch, aside });
    }

    /// Ends a transaction, stores verdicts of marked jobs beside it, and claims on the same trip.
    pub(super) async fn end(&mut self, open: Open, mut verdicts: Vec<Verdict>, lane: Lane, wanted: usize) {
        let pool = Arc::clone(&self.pool);
        let mut account = Account::default();
        self.bring_up_to_date(&open, &mut account);
        let settlement = account.settlement(&open);
        let Some(session) = self.session.take().filter(|session| !session.is_lost()) else {
            pool.verdicts.add_all(verdicts);
            return self.recover(open, account, None).await;
        };
        // The next transaction begins when nothing else is under way on its connection, and results do not wait for answers.
        let after = matches!(pool.settings.forbidden_flags, ForbiddenFlags::Asked(_));
        let wanted = if after || !verdicts.is_empty() { 0 } else { wanted };
        let claiming = pool.claims.begin(&pool.unsettled);
        let results = Results::of(&verdicts);
        // The first of them sends all that it has, up to the commit, before the others send anything.
        let (settled, mut stored, claimed) = tokio::join!(
            biased;
            session.settle(pool.owner(), &settlement),
            results.store(&session, pool.owner()),
            self.claim(&session, lane, wanted),
        );
        if stored.as_ref().is_err_and(QueueError::is_refusal) && !session.is_lost() {
            stored = self.store_apart(&session, &mut verdicts).await;
        }
        if settled.is_ok() && stored.is_ok() && claimed.is_ok() {
            self.session = Some(session);
        } else {
            session.discard();
        }
        if let Ok(marked) = &settled {
            // Those that were withdrawn can be claimed by anybody now, and this claim may have brought them.
            pool.keep_in_mind(&open, marked);
            pool.ended(&open.batch);
        }
        let claim_error = match claimed {
            // By the express lane, what it has locked is free again with the connection.
            Ok(_) if lane == Lane::Express && self.session.is_none() => {
                pool.look.store(true, Ordering::Release);
                None
            }
            Ok(jobs) => {
                self.accept(jobs, lane, wanted, &claiming);
                None
            }
            Err(error) => Some(error),
        };
        match settled {
            Ok(marked) => {
                self.store_backoff.succeeded();
                self.committed(open, account, marked);
                self.after_store(stored, verdicts).await;
            }
            Err(error) => {
                match stored {
                    Ok(late) => {
                        pool.known.remove(&verdicts);
                        self.settled(verdicts, &late, 0);
                    }
                    Err(_) => self.in_doubt(&mut verdicts),
                }
                self.recover(open, account, Some(error)).await;
            }
        }
        if let Some(error) = claim_error {
            self.claim_failed(&error).await;
        }
    }

    /// Takes the jobs away that no slot has taken, before it looks which of the others have ended.
    fn bring_up_to_date(&self, open: &Open, account: &mut Account) {
        let pool = &self.pool;
        let withdrawn = pool.held.withdraw(&open.batch);
        if !withdrawn.is_empty() {
            if !pool.closing.is_cancelled() {
                pool.speed.stalled(BOUND);
            }
            account.left_behind.extend(withdrawn.iter().map(|held| ReleasedJob::of(&held.job)));
            let ids: Vec<i64> = withdrawn.iter().map(|held| held.job.id).collect();
            let refused = open.batch.withdraw(&ids);
            account.withdrawn += ids.len() - refused.len();
            pool.verdicts.add_all(refused.into_iter().map(Verdict::never_begun));
        }
        let mut verdicts = open.batch.take_verdicts();
        let returned: Vec<i64> =
            verdicts.iter().filter(|verdict| verdict.is_return()).map(|verdict| verdict.claim.id).collect();
        if !returned.is_empty() {
            let refused: HashMap<i64, _> =
                open.batch.withdraw(&returned).into_iter().map(|claim| (claim.id, claim)).collect();
            let of_refused = verdicts.extract_if(.., |verdict| refused.contains_key(&verdict.claim.id));
            pool.verdicts.add_all(of_refused.map(|verdict| Verdict { claim: refused[&verdict.claim.id], ..verdict }));
        }
        account.verdicts.append(&mut verdicts);
    }

    fn committed(&self, mut open: Open, account: Account, marked: HashMap<i64, SystemTime>) {
        let pool = &self.pool;
        pool.ended(&open.batch);
        open.aside.iter_mut().for_each(|held| held.job.locked_at = marked.get(&held.job.id).copied());
        let late = open.batch.committed(marked);
        if !late.is_empty() {
            pool.verdicts.add_all(late);
            pool.wake();
        }
        if !account.left_behind.is_empty() {
            pool.database.released(&account.left_behind);
            // Not sooner: a claim from before the commit has not seen them.
            pool.look.store(true, Ordering::Release);
        }
        self.settled(account.verdicts, &HashSet::new(), account.withdrawn);
        pool.held.add(open.aside, None);
        pool.open_slots();
    }

    /// The connection was lost before the commit was heard of: on another one, locks those of the jobs that nobody else has
    /// taken, and ends as it was meant to. Tries for as long as it takes.
    async fn recover(&mut self, mut open: Open, mut account: Account, mut error: Option<QueueError>) {
        self.pool.database.reset_cursors();
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
                    // For as long as the batch had its jobs, looks passed them over, whoever had locked them.
                    return self.pool.known.look();
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
        let ended =
            |verdict: &mut Verdict| marked.contains_key(&verdict.claim.id) || unmarked.contains_key(&verdict.claim.id);
        for mut verdict in account.verdicts.extract_if(.., ended) {
            let id = verdict.claim.id;
            verdict.claim.locked_at = marked.get(&id).copied();
            if let Some(error) = unmarked.get(&id) {
                pool.leave_result(&verdict, error);
            } else if let Some(error) = refused.get(&id) {
                pool.hold_result(verdict, error);
            } else {
                of_marked.push(verdict);
            }
        }
        pool.verdicts.add_all(of_marked);
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
        let ((ids, attempts), added_at) = (open.batch.kept(), open.batch.kept_since());
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
        // Those that are marked already, by the lost commit or by the other line, may have ended since.
        let (mut of_marked, rest): (Vec<_>, Vec<_>) =
            account.verdicts.drain(..).partition(|verdict| again.marked.contains_key(&verdict.claim.id));
        account.verdicts = rest;
        of_marked.iter_mut().for_each(|verdict| verdict.claim.locked_at = again.marked.get(&verdict.claim.id).copied());
        self.pool.verdicts.add_all(of_marked);
        // What is neither marked now nor was before belongs to somebody else.
        marked.extend(again.marked);
        let owned = |id: &i64| available.contains(id) || marked.contains_key(id);
        open.batch.disown(ids.into_iter().filter(|id| !owned(id)));
        let lost = open.aside.len();
        self.pool.keep_in_mind(open, &marked);
        open.aside.retain(|held| marked.contains_key(&held.job.id));
        self.pool.unsettled.fetch_sub(lost - open.aside.len(), Ordering::AcqRel);
        self.session = Some(session);
        Ok(marked)
    }
}
