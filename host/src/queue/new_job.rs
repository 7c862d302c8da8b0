//! A job that is to be added.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::QueueError;

/// A job that is to be added. What is `None` gets the database's default.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use taskbay::queue::{JobKeyMode, NewJob};
///
/// #[derive(serde::Serialize)]
/// struct SendEmail {
///     to: String,
/// }
///
/// let mail = SendEmail { to: "ada@example.com".to_owned() };
/// let job = NewJob::with_payload("send_email", &mail)?
///     .queue("mail")
///     .run_at(SystemTime::now() + Duration::from_secs(60))
///     .key("welcome-ada")
///     .key_mode(JobKeyMode::PreserveRunAt);
/// assert_eq!(job.payload.as_deref(), Some(r#"{"to":"ada@example.com"}"#));
/// # Ok::<(), taskbay::queue::QueueError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewJob {
    /// The name of the task.
    pub identifier: String,
    /// JSON text; `{}` by default.
    pub payload: Option<String>,
    /// Jobs of one queue run one after another.
    pub queue_name: Option<String>,
    /// Not before this time; now by default.
    pub run_at: Option<SystemTime>,
    /// 25 by default.
    pub max_attempts: Option<i16>,
    /// At most one job waits under a key.
    pub job_key: Option<String>,
    /// What happens to the job that waits under the key already.
    pub job_key_mode: JobKeyMode,
    /// Lower is sooner; 0 by default.
    pub priority: Option<i16>,
    pub flags: Vec<String>,
}

/// What happens to a job that waits under the key of a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKeyMode {
    /// All of it becomes as the new one.
    #[default]
    Replace,
    /// All but its time, unless it has been tried already.
    PreserveRunAt,
    /// It stays as it is, even if it runs at this moment or has failed for good.
    UnsafeDedupe,
}

impl JobKeyMode {
    /// As the database calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::PreserveRunAt => "preserve_run_at",
            Self::UnsafeDedupe => "unsafe_dedupe",
        }
    }
}

/// The JSON object by which plugins ask for a job: the fields of `taskbay_abi::ADD_JOB_SPEC`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    identifier: String,
    #[serde(default, deserialize_with = "even_null")]
    payload: Option<Box<RawValue>>,
    queue_name: Option<String>,
    run_at: Option<RunAt>,
    max_attempts: Option<i16>,
    job_key: Option<String>,
    job_key_mode: Option<JobKeyMode>,
    priority: Option<i16>,
    flags: Option<Vec<String>>,
}

/// A time, which plugins give in microseconds since the Unix epoch, and people as they write it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "run_at is neither microseconds since 1970 nor a time such as 2030-01-31T12:00:00Z")]
enum RunAt {
    Microseconds(i64),
    Time(Timestamp),
}

/// A payload of `null` is one, other than no payload.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl FromStr for JobKeyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [Self::Replace, Self::PreserveRunAt, Self::UnsafeDedupe];
        modes.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not a mode for job keys: it is one of replace, preserve_run_at and unsafe_dedupe")
        })
    }
}

impl NewJob {
    /// A job of the task named `identifier`, with defaults for the rest.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), ..Self::default() }
    }

    /// The same, with a payload. It fails if the payload cannot be written as JSON.
    pub fn with_payload<P>(identifier: impl Into<String>, payload: &P) -> Result<Self, QueueError>
    where
        P: Serialize + ?Sized,
    {
        let identifier = identifier.into();
        match serde_json::to_string(payload) {
            Ok(json) => Ok(Self { payload: Some(json), ..Self::new(identifier) }),
            Err(error) => Err(QueueError::BadJob {
                reason: format!("the payload for task {identifier} cannot be written as JSON: {error}"),
            }),
        }
    }

    /// Jobs of one queue run one after another.
    #[must_use]
    pub fn queue(self, name: impl Into<String>) -> Self {
        Self { queue_name: Some(name.into()), ..self }
    }

    /// Not before this time.
    #[must_use]
    pub fn run_at(self, time: SystemTime) -> Self {
        Self { run_at: Some(time), ..self }
    }

    /// How often it is tried at most, at least once; 25 times without.
    #[must_use]
    pub fn max_attempts(self, attempts: i16) -> Self {
        Self { max_attempts: Some(attempts), ..self }
    }

    /// At most one job waits under a key, of 1 to 512 characters.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { job_key: Some(key.into()), ..self }
    }

    /// What happens to the job that waits under the key already.
    #[must_use]
    pub fn key_mode(self, mode: JobKeyMode) -> Self {
        Self { job_key_mode: mode, ..self }
    }

    /// Lower is sooner; 0 without.
    #[must_use]
    pub fn priority(self, priority: i16) -> Self {
        Self { priority: Some(priority), ..self }
    }

    /// One more flag, by which workers can leave the job to others.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Reads the JSON object that a plugin sends (`taskbay_abi::ADD_JOB_SPEC`). The payload is taken over byte for byte.
    pub fn from_spec(json: &str) -> Result<Self, QueueError> {
        let wrong = |error: &dyn std::fmt::Display| QueueError::BadJob {
            reason: format!("the request is not as it should be: {error}"),
        };
        // A list would be read as the values of the fields, in their order.
        if json.trim_start().starts_with('[') {
            return Err(wrong(&"expected an object with the fields of a job, and not a list"));
        }
        let spec: Spec = serde_json::from_str(json).map_err(|error| wrong(&error))?;
        Ok(Self {
            identifier: spec.identifier,
            payload: spec.payload.map(|payload| payload.get().to_owned()),
            queue_name: spec.queue_name,
            run_at: spec.run_at.map(RunAt::moment).transpose()?,
            max_attempts: spec.max_attempts,
            job_key: spec.job_key,
            job_key_mode: spec.job_key_mode.unwrap_or_default(),
            priority: spec.priority,
            flags: spec.flags.unwrap_or_default(),
        })
    }
}

impl NewJob {
    /// Reads an array of such objects.
    pub fn from_specs(json: &str) -> Result<Vec<Self>, QueueError> {
        let specs: Vec<&RawValue> = serde_json::from_str(json)
            .map_err(|error| QueueError::BadJob { reason: format!("the request is not as it should be: {error}") })?;
        let read = |(place, spec): (usize, &&RawValue)| {
            Self::from_spec(spec.get()).map_err(|error| QueueError::BadJob {
                reason: format!("{} (job {} of {})", error.reason(), place + 1, specs.len()),
            })
        };
        specs.iter().enumerate().map(read).collect()
    }
}

impl RunAt {
    fn moment(self) -> Result<SystemTime, QueueError> {
        match self {
            Self::Microseconds(since_epoch) => from_microseconds(since_epoch),
            Self::Time(time) => Ok(time.into()),
        }
    }
}

fn from_microseconds(since_epoch: i64) -> Result<SystemTime, QueueError> {
    let distance = Duration::from_micros(since_epoch.unsigned_abs());
    let time = if since_epoch < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    // Postgres counts microseconds since 2000 in as many bits, so the earliest times of ours do not exist there.
    let storable = since_epoch > i64::MIN / 2 && since_epoch < i64::MAX / 2;
    time.filter(|_| storable).ok_or_else(|| QueueError::BadJob {
        reason: format!(
            "run_at is {since_epoch} microseconds since the Unix epoch, which is not a time that can be stored"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_field_and_keeps_the_payload_byte_for_byte() {
        let payload = r#"{ "n": 12345678901234567890.10, "z": "\u0000", "a":[1,  2], "z": null }"#;
        let spec = format!(
            r#"{{"identifier":"mail/send","payload":{payload},"queue_name":"q","run_at":1500000,"max_attempts":3,
               "job_key":"k","job_key_mode":"preserve_run_at","priority":-5,"flags":["a","b"]}}"#
        );
        let job = NewJob::from_spec(&spec).unwrap();
        assert_eq!(
            job,
            NewJob {
                identifier: "mail/send".to_owned(),
                payload: Some(payload.to_owned()),
                queue_name: Some("q".to_owned()),
                run_at: Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000)),
                max_attempts: Some(3),
                job_key: Some("k".to_owned()),
                job_key_mode: JobKeyMode::PreserveRunAt,
                priority: Some(-5),
                flags: vec!["a".to_owned(), "b".to_owned()],
            }
        );
    }

    #[test]
    fn reads_exactly_the_fields_of_the_binary_interface() {
        for field in taskbay_abi::ADD_JOB_SPEC {
            let spec = if field == "identifier" {
                r#"{"identifier":"t"}"#.to_owned()
            } else {
                format!(r#"{{"identifier":"t","{field}":null}}"#)
            };
            NewJob::from_spec(&spec).unwrap_or_else(|error| panic!("{field}: {error}"));
        }
    }

    #[test]
    fn reads_a_time_as_people_write_it() {
        for time in ["2030-01-31T12:00:00.5Z", "2030-01-31T14:00:00.500000+02:00"] {
            let job = NewJob::from_spec(&format!(r#"{{"identifier":"t","run_at":"{time}"}}"#)).unwrap();
            assert_eq!(job.run_at, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_896_091_200_500)));
        }
    }

    #[test]
    fn tells_a_payload_of_null_from_none() {
        assert_eq!(NewJob::from_spec(r#"{"identifier":"t","payload":null}"#).unwrap().payload.as_deref(), Some("null"));
        assert_eq!(NewJob::from_spec(r#"{"identifier":"t"}"#).unwrap().payload, None);
    }

    #[test]
    fn reads_many_in_their_order_or_says_which_is_wrong() {
        let jobs = NewJob::from_specs(r#"[{"identifier":"b"},{"identifier":"a","payload":[1,  2]}]"#).unwrap();
        assert_eq!(jobs, [NewJob::new("b"), NewJob { payload: Some("[1,  2]".to_owned()), ..NewJob::new("a") }]);
        let error = NewJob::from_specs(r#"[{"identifier":"b"},{"identifier":7}]"#).unwrap_err().to_string();
        assert!(error.contains("expected a string") && error.ends_with("(job 2 of 2)"), "{error}");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (spec, part) in [
            (r#"{"identifier":"t","queue":"q"}"#, "unknown field `queue`"),
            (r#"{"payload":1}"#, "missing field `identifier`"),
            (r#"{"identifier":"t","job_key_mode":"merge"}"#, "unknown variant `merge`"),
            (r#"{"identifier":"t","priority":40000}"#, "40000"),
            (r#"{"identifier":"t","run_at":"soon"}"#, "neither microseconds since 1970 nor a time such as"),
            (r#"{"identifier":"t","run_at":1.5}"#, "neither microseconds since 1970 nor a time such as"),
            (r#"{"identifier":"t","run_at":-9223372036854775808}"#, "not a time"),
            ("[1", "not as it should be"),
            (r#"["t", {}]"#, "expected an object with the fields of a job, and not a list"),
        ] {
            let error = NewJob::from_spec(spec).unwrap_err().to_string();
            assert!(error.contains(part), "{spec}: {error}");
        }
    }
}
