//! Releases the jobs of dead owners although the database refuses to release some of them.

use rand::Rng;
use tokio_postgres::types::Type;

use super::{Bisection, QueueError, Released, Session, release_dead::RELEASING};

/// $1 second keys of owners: the jobs that may be among them.
const HELD: &str = "
select id
from @schema@._private_jobs
where locked_at is not null
  and locked_by like @live_owners@
  and pg_catalog.hashtext(locked_by)::int8 & 4294967295 = any ($1)
order by id";

/// So many statements are sent at most to release jobs around those that the database refuses to release.
const TRIES: usize = 300;

impl Session {
    /// As [`Session::release_dead`], for when that was refused: part by part.
    pub(super) async fn release_around(&self, ours: &str, keys: &[i64]) -> Result<Released, QueueError> {
        let rows = self.query_as_part(RELEASING, HELD, &[(&keys, Type::INT8_ARRAY)]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(RELEASING, &error);
        let mut ids: Vec<i64> = rows.iter().map(|row| row.try_get(0).map_err(read)).collect::<Result<_, _>>()?;
        // Each time from another one on, so that refused jobs that use up the tries do not always keep the same others waiting.
        let first = rand::rng().random_range(0..ids.len().max(1));
        ids.rotate_left(first);
        let mut released = Released::default();
        let mut parts = Bisection::new(ids.len(), TRIES);
        while let Some(part) = parts.next() {
            let ran = async {
                let more = self.release(ours, keys, Some(&ids[part.clone()])).await?;
                released.jobs += more.jobs;
                released.queues += more.queues;
                released.has_skipped |= more.has_skipped;
                released.owners.extend(more.owners);
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        released.refused.extend(apart.refused_of(&ids).map(|(id, error)| (id, error.reason())));
        released.owners.sort_unstable();
        released.owners.dedup();
        if released.jobs + released.queues == 0 {
            // They go on having what is refused.
            released.owners.clear();
        }
        Ok(released)
    }
}
