//! From the outcome of an attempt to the end of its job: what the attempt's number, the task's rules and earlier crashes make
//! of it.

use serde_json::value::RawValue;

use super::{completion::End, crashes::Crashes};
use crate::{
    plugin::{FailedItems, FailureKind, Outcome},
    queue::{CrashRecord, Job},
};

/// An attempt that has ended on one build.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) job: &'a Job,
    /// How many attempts the job and its task allow.
    pub(super) max_attempts: i16,
    /// The crashes before it.
    pub(super) crashes: Crashes,
    /// How its build runs.
    pub(super) process: Process,
    /// After how many crashes the job is given up.
    pub(super) max_crashes: usize,
    /// The host has told running jobs to end.
    pub(super) was_forced: bool,
}

/// The process in which an attempt ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// The job had it for itself.
    pub(super) exclusive: bool,
    /// A job of this build can have one for itself.
    pub(super) can_be_exclusive: bool,
    /// It was the host's own.
    pub(super) is_host: bool,
}

/// What an outcome means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    Ended(End),
    /// The job is done, although its task reported so many results that stand for nothing in the payload.
    DoneBut {
        results: usize,
        message: String,
    },
    /// The build did not take the job: another one may.
    NotStarted,
}

pub(super) fn conclude(outcome: Outcome, attempt: &Attempt<'_>) -> Conclusion {
    let end = match outcome {
        Outcome::Done => End::Complete,
        // It has not come to its end because of this host's, which is no reason to count the attempt.
        Outcome::Failed { kind: FailureKind::Cancelled, .. } if attempt.was_forced => {
            End::Release { reason: "the host is stopping", at_once: false }
        }
        Outcome::Failed { kind: FailureKind::Crash, message } if attempt.process.can_be_exclusive => {
            let Process { exclusive, is_host, .. } = attempt.process;
            let (message, over, record) =
                attempt.crashes.and_one_more(&message, exclusive, is_host, attempt.max_crashes);
            attempt.failed(message, over, None, Some(record))
        }
        Outcome::Failed { kind, message } => attempt.failed(message, kind == FailureKind::Discard, None, None),
        Outcome::PartlyFailed { items, message } => return attempt.partly_failed(&items, message),
        Outcome::NotStarted => return Conclusion::NotStarted,
    };
    Conclusion::Ended(end)
}

/// Of a job whose payload no task can read. Another attempt would meet the same bytes.
pub(super) fn unreadable(payload: &str) -> End {
    const SHOWN: usize = 200;
    let shown: String = payload.chars().take(SHOWN).collect();
    let more = if shown.len() < payload.len() { " …" } else { "" };
    let message = format!("the payload is not valid UTF-8, so no task can read it: {shown}{more}");
    End::Fail { message, permanent: true, max_attempts: None, payload: None, crashes: None }
}

impl Attempt<'_> {
    fn failed(&self, message: String, permanent: bool, payload: Option<String>, crashes: Option<CrashRecord>) -> End {
        let max_attempts = (self.max_attempts < self.job.max_attempts).then_some(self.max_attempts);
        End::Fail { message, permanent, max_attempts, payload, crashes }
    }

    /// The next attempt gets the items that failed and no others, as they were stored.
    fn partly_failed(&self, failed: &FailedItems, message: String) -> Conclusion {
        let payload = &self.job.payload;
        let end = match serde_json::from_str::<Vec<&RawValue>>(payload) {
            Ok(items) if items.len() == failed.items() => {
                let (left, again) = failed.left(self.job.attempts >= self.max_attempts);
                let left: Vec<&str> = left.iter().map(|index| items[*index].get()).collect();
                let payload = (left.len() < items.len()).then(|| format!("[{}]", left.join(",")));
                self.failed(message, !again, payload, None)
            }
            // What Postgres takes for an array should be one here, too. Should it not be, then nothing is lost.
            Err(error) if payload.trim_start().starts_with('[') => {
                let message =
                    format!("{message}\n(the payload cannot be taken apart, so that all is tried again: {error})");
                self.failed(message, false, None, None)
            }
            // As graphile-worker does: results that stand for nothing in the payload are no results.
            Ok(_) | Err(_) => return Conclusion::DoneBut { results: failed.items(), message },
        };
        Conclusion::Ended(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::FailedItem;

    const CHILD: Process = Process { exclusive: false, can_be_exclusive: true, is_host: false };

    fn after(outcome: Outcome, job: &Job, change: impl FnOnce(&mut Attempt<'_>)) -> Conclusion {
        let mut attempt = Attempt {
            job,
            max_attempts: job.max_attempts,
            crashes: Crashes::of(job),
            process: CHILD,
            max_crashes: 3,
            was_forced: false,
        };
        change(&mut attempt);
        conclude(outcome, &attempt)
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed { kind, message: "no".to_owned() }
    }

    fn failure(permanent: bool) -> Conclusion {
        let message = "no".to_owned();
        Conclusion::Ended(End::Fail { message, permanent, max_attempts: None, payload: None, crashes: None })
    }

    #[test]
    fn each_outcome_has_its_end() {
        let job = Job::sample(1);
        let unchanged = |_: &mut Attempt<'_>| {};
        assert_eq!(after(Outcome::Done, &job, unchanged), Conclusion::Ended(End::Complete));
        assert_eq!(after(Outcome::NotStarted, &job, unchanged), Conclusion::NotStarted);
        for kind in [FailureKind::Error, FailureKind::Panic, FailureKind::Timeout, FailureKind::Cancelled] {
            assert_eq!(after(failed(kind), &job, unchanged), failure(false), "{kind:?}");
        }
        assert_eq!(after(failed(FailureKind::Discard), &job, unchanged), failure(true));
    }

    #[test]
    fn a_job_that_ends_because_its_host_does_is_released() {
        let conclusion = after(failed(FailureKind::Cancelled), &Job::sample(1), |attempt| attempt.was_forced = true);
        assert!(matches!(conclusion, Conclusion::Ended(End::Release { at_once: false, .. })), "{conclusion:?}");
    }

    #[test]
    fn a_crash_is_recorded_where_the_next_attempt_can_have_a_process_of_its_own() {
        let job = Job::sample(1);
        let crash = || failed(FailureKind::Crash);
        let Conclusion::Ended(End::Fail { crashes: Some(record), permanent: false, .. }) = after(crash(), &job, |_| ())
        else {
            panic!("the crash counts");
        };
        assert_eq!(record.count, 1);
        let without = |attempt: &mut Attempt<'_>| attempt.process.can_be_exclusive = false;
        assert_eq!(after(crash(), &job, without), failure(false));
    }

    #[test]
    fn a_task_may_allow_fewer_attempts_than_its_job() {
        let conclusion = after(failed(FailureKind::Error), &Job::sample(1), |attempt| attempt.max_attempts = 3);
        assert!(matches!(conclusion, Conclusion::Ended(End::Fail { max_attempts: Some(3), .. })), "{conclusion:?}");
    }

    #[test]
    fn the_items_that_failed_are_the_payload_of_the_next_attempt() {
        let items = |count| FailedItems::new(count, vec![FailedItem { index: 1, discard: false }]).expect("they fit");
        let with = |payload: &str, items| {
            let job = Job { payload: payload.to_owned(), ..Job::sample(1) };
            after(Outcome::PartlyFailed { items, message: "no".to_owned() }, &job, |_| ())
        };
        let Conclusion::Ended(End::Fail { payload, permanent: false, .. }) = with("[1, {\"a\": 2}]", items(2)) else {
            panic!("it is tried again");
        };
        assert_eq!(payload.as_deref(), Some("[{\"a\": 2}]"));
        assert_eq!(with("{}", items(2)), Conclusion::DoneBut { results: 2, message: "no".to_owned() });
        assert_eq!(with("[1]", items(2)), Conclusion::DoneBut { results: 2, message: "no".to_owned() });
    }
}
