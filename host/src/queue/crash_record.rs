//! How often a job crashed, for whoever has it next, in its row.
//!
//! It is kept in the row's `flags`, under a key of ours, because that column is the only one that has room for it and that no
//! failure writes: `last_error` has whatever text a task, or a worker on Node, makes up. `add_job` sets flags only to `true`,
//! which is no record, and sets them anew when it replaces a job, together with the attempts. Workers on Node compare the names of
//! flags with those that are forbidden, and leave them as they are. So a record is not removed when an attempt ends otherwise: it
//! holds only for the attempt right after the one that it names.
//!
//! Every claim brings the flags anyway, and nearly all jobs have none. A count that an earlier version left in `last_error` is
//! not read any more; such a job begins at none.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a row says of the attempts before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CrashRecord {
    /// How often a process crashed that ran it, in consecutive attempts.
    pub count: u32,
    /// The last of them.
    pub attempt: i32,
    /// In one of them, its host ended.
    #[serde(default)]
    pub host_ended: bool,
}

/// Becomes the flags of a job that crashed: `job` is the row, and what is put in for `@record@` a record, or null where there is none.
pub(super) const WITH_RECORD: &str = "case
        when @record@ is null then job.flags
        else coalesce(job.flags, '{}') || pg_catalog.jsonb_build_object('taskbay:crashes', @record@::jsonb)
      end";

/// Becomes the flags of a job whose host ended. Whatever somebody else wrote there is not read as a number, which might fail.
pub(super) const WITH_HOST_ENDED: &str = "coalesce(job.flags, '{}') || pg_catalog.jsonb_build_object(
        'taskbay:crashes',
        pg_catalog.jsonb_build_object(
          'count',
          case
            when job.flags #> '{taskbay:crashes,attempt}' = pg_catalog.to_jsonb(job.attempts - 1)
            then job.flags #> '{taskbay:crashes,count}'
            else '0'
          end,
          'attempt',
          job.attempts,
          'host_ended',
          true
        )
      )";

impl CrashRecord {
    /// Its key among the flags.
    pub const FLAG: &str = "taskbay:crashes";

    /// The record that holds for this attempt.
    pub fn of(flags: Option<&str>, attempt: i16) -> Option<Self> {
        #[derive(Deserialize)]
        struct Flags {
            #[serde(rename = "taskbay:crashes")]
            crashes: CrashRecord,
        }
        let flags = flags.filter(|flags| flags.contains(Self::FLAG))?;
        let Flags { crashes } = serde_json::from_str(flags).ok()?;
        (crashes.attempt == i32::from(attempt) - 1).then_some(crashes)
    }

    pub(crate) fn as_json(self) -> String {
        serde_json::to_string(&self).expect("numbers can be written as JSON")
    }
}

/// The flags that somebody else has set.
pub(crate) fn without_record(flags: Option<&str>) -> Option<Cow<'_, str>> {
    let flags = flags?;
    if !flags.contains(CrashRecord::FLAG) {
        return Some(Cow::Borrowed(flags));
    }
    let Ok(mut all) = serde_json::from_str::<Map<String, Value>>(flags) else { return Some(Cow::Borrowed(flags)) };
    all.remove(CrashRecord::FLAG);
    (!all.is_empty()).then(|| Cow::Owned(Value::Object(all).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_of_the_attempt_before_holds() {
        let flags = r#"{"taskbay:crashes": {"count": 2, "attempt": 4}, "a": true}"#;
        let record = CrashRecord { count: 2, attempt: 4, host_ended: false };
        assert_eq!(CrashRecord::of(Some(flags), 5), Some(record));
        assert_eq!(CrashRecord::of(Some(flags), 6), None);
        for other in [
            r#"{"taskbay:crashes": true}"#,
            r#"{"taskbay:crashes": {"count": -1, "attempt": 4}}"#,
            r#"{"taskbay:crashes": {"count": null, "attempt": 4}}"#,
            r#"["taskbay:crashes"]"#,
            r#"{"a": "taskbay:crashes"}"#,
        ] {
            assert_eq!(CrashRecord::of(Some(other), 5), None, "{other}");
        }
        assert_eq!(CrashRecord::of(None, 5), None);
    }

    #[test]
    fn tasks_see_the_flags_of_others() {
        let without = |flags| without_record(flags).map(Cow::into_owned);
        assert_eq!(without(None), None);
        assert_eq!(without(Some(r#"{"a": true}"#)).as_deref(), Some(r#"{"a": true}"#));
        assert_eq!(without(Some(r#"{"taskbay:crashes": {"count": 2}, "a": true}"#)).as_deref(), Some(r#"{"a":true}"#));
        assert_eq!(without(Some(r#"{"taskbay:crashes": {"count": 2}}"#)), None);
    }
}
