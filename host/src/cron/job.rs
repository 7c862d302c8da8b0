//! The job that a schedule adds.

use jiff::Timestamp;
use serde_json::json;

use crate::{
    crontab::{CronItem, KeyMode},
    queue::{CronJob, JobKeyMode, NewJob},
};

/// The job of a schedule at a minute. Its payload tells the task which minute it is for and whether that was made up for, in
/// the words of graphile-worker.
pub(super) fn job_of(item: &CronItem, minute: Timestamp, backfilled: bool) -> CronJob {
    let mut payload = item.payload.clone();
    payload.insert("_cron".to_owned(), json!({ "ts": format!("{minute:.3}"), "backfilled": backfilled }));
    let options = &item.options;
    let job = NewJob {
        payload: Some(serde_json::Value::Object(payload).to_string()),
        queue_name: options.queue_name.clone(),
        run_at: Some(minute.into()),
        max_attempts: options.max_attempts,
        job_key: options.job_key.clone(),
        job_key_mode: match options.job_key_mode {
            Some(KeyMode::PreserveRunAt) => JobKeyMode::PreserveRunAt,
            Some(KeyMode::Replace) | None => JobKeyMode::Replace,
        },
        priority: options.priority,
        ..NewJob::new(item.task.as_str())
    };
    CronJob { identifier: item.identifier.clone(), job }
}
