//! Ends a transaction of the express lane whose results were refused as a whole.

use std::{collections::HashMap, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{
    Bisection, FailedJob, QueueError, Session, Settlement,
    express::{DELETE, FAIL, MARK, SETTLE},
    fail_jobs::Failures,
};

/// So many statements are sent for each kind of result at most.
const TRIES: usize = 300;

/// What has become of the jobs of the transaction.
#[derive(Debug, Default)]
pub struct SettledApart {
    /// When those are marked that are marked now.
    pub marked: HashMap<i64, SystemTime>,
    /// Their results were refused; they are marked instead, if they can be.
    pub refused: Vec<(i64, QueueError)>,
    /// Those that cannot be marked: they are available to everybody.
    pub unmarked: Vec<(i64, QueueError)>,
}

impl Session {
    /// As [`Session::settle`], for when that was refused and the jobs are locked again. Results that are not reached, because
    /// too many are refused, are marked as those that still run.
    pub async fn settle_apart(&self, owner: &str, settlement: &Settlement) -> Result<SettledApart, QueueError> {
        // Constraints that are checked at the commit are to speak where it is known which job they mean.
        self.command(SETTLE, "set constraints all immediate").await?;
        let mut settled = SettledApart::default();
        let mut to_mark = settlement.marked.clone();

        let Settlement { done, failed, .. } = settlement;
        let mut parts = Bisection::new(done.len(), TRIES);
        while let Some(part) = parts.next() {
            let ran = async {
                let ids = &done[part.clone()];
                self.try_as_part(SETTLE, DELETE, &[(&ids, Type::INT8_ARRAY)]).await.map(drop)
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        to_mark.extend(apart.untried.iter().map(|place| done[*place]));
        settled.refused.extend(apart.refused_of(done));

        let mut parts = Bisection::new(failed.len(), TRIES);
        while let Some(part) = parts.next() {
            let ran = async { self.fail_as_part(&failed[part.clone()], settlement.in_ascii).await };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        to_mark.extend(apart.untried.iter().map(|place| failed[*place].claim.id));
        settled.refused.extend(apart.refused.into_iter().map(|(place, error)| (failed[place].claim.id, error)));

        to_mark.extend(settled.refused.iter().map(|(id, _)| *id));
        let mut parts = Bisection::new(to_mark.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                let ids = &to_mark[part.clone()];
                let rows = self.try_as_part(SETTLE, MARK, &[(&owner, Type::TEXT), (&ids, Type::INT8_ARRAY)]).await?;
                for row in rows {
                    let read = |error: tokio_postgres::Error| QueueError::statement(SETTLE, &error);
                    settled.marked.insert(row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
                }
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        settled.unmarked.extend(apart.refused_of(&to_mark));
        self.command(SETTLE, "commit").await?;
        Ok(settled)
    }

    async fn fail_as_part(&self, failed: &[FailedJob], in_ascii: bool) -> Result<(), QueueError> {
        let failures = Failures::of(failed, in_ascii);
        let [messages, permanent, max_attempts, payloads, crashes] = failures.what_to_store();
        let parameters: [(&(dyn ToSql + Sync), Type); 6] =
            [failures.ids(), messages, permanent, max_attempts, payloads, crashes];
        self.try_as_part(SETTLE, &FAIL, &parameters).await.map(drop)
    }
}
