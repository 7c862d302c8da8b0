//! Jobs that were running when a process crashed: how often that was, one time after the other.
//!
//! Who caused a crash is not known while others ran in the same process. So the next attempt has a process of its own, and a
//! job that crashes that one, too, is not tried for days. How the count gets from one host to the next is the matter of
//! [`CrashRecord`]; what the errors of jobs say of it is for people, and nobody reads it again.

use crate::queue::{CrashRecord, Job};

/// What is known of a job's crashes as an attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crashes {
    attempt: i16,
    /// Without an attempt between them that ended otherwise.
    count: u32,
    /// A host ended while it had the job.
    host_ended: bool,
}

impl Crashes {
    pub(super) fn of(job: &Job) -> Self {
        let record = CrashRecord::of(job.flags.as_deref(), job.attempts).unwrap_or_default();
        Self { attempt: job.attempts, count: record.count, host_ended: record.host_ended }
    }

    /// Whether the next attempt needs a process of its own: the end of a host says nothing against jobs that ran in other
    /// processes.
    pub(super) fn want_own_process(self, runs_in_this_process: bool) -> bool {
        self.against_it(runs_in_this_process) > 0
    }

    /// The reason of one that crashed once more, whether it is not to be tried again, and what is to be stored: of `most`
    /// crashes, the last one has to be its own.
    pub(super) fn and_one_more(
        self,
        reason: &str,
        alone: bool,
        in_host: bool,
        most: usize,
    ) -> (String, bool, CrashRecord) {
        let count = self.against_it(in_host).saturating_add(1);
        let over = alone && count as usize >= most;
        let then = if over {
            "it was alone in its process and is not tried again"
        } else {
            "the next attempt has a process of its own"
        };
        let record = CrashRecord {
            count: self.count.saturating_add(1),
            attempt: self.attempt.into(),
            host_ended: self.host_ended,
        };
        (format!("{reason}\n{then} (crash {count})"), over, record)
    }

    /// The crashes that it may have caused, where it runs in the host's process or in another one.
    fn against_it(self, runs_in_this_process: bool) -> u32 {
        self.count.saturating_add(u32::from(self.host_ended && runs_in_this_process))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(attempt: i16, flags: Option<&str>) -> Crashes {
        Crashes::of(&Job { attempts: attempt, flags: flags.map(str::to_owned), ..Job::sample(1) })
    }

    fn after(crash: &CrashRecord) -> Crashes {
        let flags = format!(r#"{{"slow": true, "{}": {}}}"#, CrashRecord::FLAG, crash.as_json());
        attempt(i16::try_from(crash.attempt + 1).unwrap(), Some(&flags))
    }

    #[test]
    fn crashes_are_counted_until_an_attempt_ends_otherwise() {
        let (first, over, record) = attempt(4, None).and_one_more("killed", false, false, 3);
        assert_eq!(first, "killed\nthe next attempt has a process of its own (crash 1)");
        assert!(!over && after(&record).want_own_process(false));
        let (second, over, record) = after(&record).and_one_more("killed", true, false, 3);
        assert!(second.ends_with("(crash 2)") && !over);
        let (third, over, _) = after(&record).and_one_more("killed", true, false, 3);
        assert!(over);
        assert_eq!(third, "killed\nit was alone in its process and is not tried again (crash 3)");
        // The attempt after the next one has another one before it.
        let later = CrashRecord { attempt: record.attempt - 1, ..record };
        let flags = format!(r#"{{"{}": {}}}"#, CrashRecord::FLAG, later.as_json());
        assert_eq!(attempt(6, Some(&flags)), attempt(6, None));
    }

    #[test]
    fn nothing_is_given_up_for_the_crash_of_another_one() {
        let often = Crashes { attempt: 8, count: 7, host_ended: false };
        assert!(!often.and_one_more("killed", false, false, 1).1);
        assert!(often.and_one_more("killed", true, false, 1).1);
    }

    #[test]
    fn the_end_of_a_host_concerns_those_that_ran_in_it() {
        let died = after(&CrashRecord { count: 0, attempt: 2, host_ended: true });
        assert!(died.want_own_process(true) && !died.want_own_process(false));
        for (in_host, said) in [(true, "(crash 2)"), (false, "(crash 1)")] {
            let (error, _, record) = died.and_one_more("killed", true, in_host, 3);
            assert!(error.ends_with(said), "{error}");
            assert_eq!(record, CrashRecord { count: 1, attempt: 3, host_ended: true });
        }
    }
}
