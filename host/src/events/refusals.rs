//! Jobs that the database refuses, by a trigger or a constraint, and how that is said.

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

/// What the database refuses of a job.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// To store its result. That is tried again; `repeated` if it was before.
    Result { id: i64, task: Option<Arc<str>>, error: String, retry_in: Duration, repeated: bool },
    /// Nothing any more: the result is stored.
    ResultStored { id: i64, task: Option<Arc<str>> },
    /// To store its result, and it is not tried again.
    ResultLeft { id: i64, task: Option<Arc<str>>, error: String, left: LeftResult },
    /// To store the results of so many jobs that no more are claimed.
    TooManyResults { count: usize, error: String },
    /// To let it be claimed. That is tried again; `repeated` if it was before.
    Claim { id: i64, task: Option<Arc<str>>, error: String, retry_in: Duration, repeated: bool },
    /// To change its lock: `what` completes "could not … the lock".
    Lock { what: &'static str, id: i64, error: String },
}

/// How a job is left whose result could not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftResult {
    /// It was completed, and has failed for good instead, so that nobody runs it again.
    Failed,
    /// It stays locked in the name of this host.
    Locked,
    /// Anybody may claim it.
    Available,
}

impl Refusal {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Result { .. } => "job:resultRefused",
            Self::ResultStored { .. } => "job:resultStored",
            Self::ResultLeft { .. } => "job:resultLeft",
            Self::TooManyResults { .. } => "worker:claimsPaused",
            Self::Claim { .. } => "job:claimRefused",
            Self::Lock { .. } => "job:lockRefused",
        }
    }

    pub(super) fn log(&self) {
        match self {
            Self::Result { id, task, error, retry_in, repeated: false } => warn!(
                event = "result_refused",
                job = id,
                task = task.as_deref(),
                "the database refuses to store the result of job {id}{}: {error}; the job stays locked and is not run \
                 again, and the result is tried again in {} s and then less and less often",
                in_brackets(task.as_deref()),
                retry_in.as_secs()
            ),
            Self::Result { id, task, error, retry_in, .. } => debug!(
                event = "result_refused",
                job = id,
                task = task.as_deref(),
                "the database still refuses to store the result of job {id}{}: {error}; next try in {} s",
                in_brackets(task.as_deref()),
                retry_in.as_secs()
            ),
            Self::ResultStored { id, task } => info!(
                event = "result_stored",
                job = id,
                task = task.as_deref(),
                "stored the result of job {id}{}, which the database had refused",
                in_brackets(task.as_deref())
            ),
            Self::ResultLeft { id, task, error, left } => {
                let left = match left {
                    LeftResult::Failed => {
                        "it ran to completion and was made to fail for good instead, so that it does not run again"
                    }
                    LeftResult::Locked => {
                        "it stays locked; another host runs it again once it finds this one dead, if the database lets it"
                    }
                    LeftResult::Available => "the job cannot be locked either, so any worker may run it again",
                };
                warn!(
                    event = "result_left",
                    job = id,
                    task = task.as_deref(),
                    "the database refuses to store the result of job {id}{}: {error}; {left}",
                    in_brackets(task.as_deref())
                );
            }
            Self::TooManyResults { count, error } => warn!(
                event = "claims_paused",
                count,
                "no more jobs are claimed, because the database refuses to store the results of {count} jobs, of the last one with: \
                 {error}; claims go on when it stores some of them"
            ),
            Self::Claim { id, task, error, retry_in, repeated: false } => warn!(
                event = "claim_refused",
                job = id,
                task = task.as_deref(),
                "the database refuses to let job {id}{} be claimed: {error}; the job stays where it is and is tried again in \
                 {} s and then less and less often",
                in_brackets(task.as_deref()),
                retry_in.as_secs()
            ),
            Self::Lock { what, id, error } => {
                warn!(event = "lock_refused", job = id, "could not {what} the lock of job {id}: {error}");
            }
            Self::Claim { id, task, error, retry_in, .. } => debug!(
                event = "claim_refused",
                job = id,
                task = task.as_deref(),
                "the database still refuses to let job {id}{} be claimed: {error}; next try in {} s",
                in_brackets(task.as_deref()),
                retry_in.as_secs()
            ),
        }
    }
}

pub(super) fn in_brackets(task: Option<&str>) -> String {
    task.map(|task| format!(" ({task})")).unwrap_or_default()
}
