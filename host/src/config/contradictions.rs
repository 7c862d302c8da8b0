//! Checks for settings that are valid separately but contradict each other.

use std::time::Duration;

use thiserror::Error;

use super::{Layer, SETTINGS, Settings, public_key};

/// The connections in use for jobs: two for claims and completions, and one for requests of plugins.
const SMALLEST_POOL: usize = 3;

/// Unusable settings: two that contradict each other, or an invalid one.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Contradiction(String);

/// Checks the settings. `layer` has their origins.
pub fn check(layer: &Layer, settings: &Settings) -> Result<(), Contradiction> {
    let (shortest, longest) = settings.worker.reset_locked;
    in_order(
        layer,
        settings,
        "worker.min_reset_locked_interval",
        shortest,
        "worker.max_reset_locked_interval",
        longest,
    )?;
    let folder = &settings.folder;
    in_order(layer, settings, "tasks.settle", folder.settle, "tasks.settle_cap", folder.settle_cap)?;
    for key in &folder.trusted_keys {
        public_key(key).map_err(|problem| {
            Contradiction(format!("tasks.trusted_keys ({}) {problem}", layer.origin("tasks.trusted_keys")))
        })?;
    }
    let sized = layer.local_queue_size.is_some();
    let delayed = layer.refetch_delay.is_some();
    needs("local_queue_ttl", layer.local_queue_ttl.is_some(), "local_queue_size", sized)?;
    needs("refetch_delay", delayed, "local_queue_size", sized)?;
    needs("refetch_threshold", layer.refetch_threshold.is_some(), "refetch_delay", delayed)?;
    needs("refetch_max_abort_threshold", layer.refetch_max_abort_threshold.is_some(), "refetch_delay", delayed)?;
    if settings.database.max_pool_size < SMALLEST_POOL {
        return Err(Contradiction(format!(
            "{} is too small to work jobs with: they need {SMALLEST_POOL} connections, two to claim jobs and store what \
             became of them, and one for jobs that plugins add ({} needs no more)",
            named(layer, settings, "database.max_pool_size"),
            named(layer, settings, "worker.concurrency"),
        )));
    }
    Ok(())
}

/// Refuses a worker setting that has an effect only together with another one.
fn needs(key: &str, said: bool, other: &str, other_said: bool) -> Result<(), Contradiction> {
    if !said || other_said {
        return Ok(());
    }
    Err(Contradiction(format!("worker.{key} has no effect without worker.{other}: set {other} too, or remove {key}")))
}

fn in_order(
    layer: &Layer,
    settings: &Settings,
    less: &str,
    shorter: Duration,
    more: &str,
    longer: Duration,
) -> Result<(), Contradiction> {
    if shorter <= longer {
        return Ok(());
    }
    let (less, more) = (named(layer, settings, less), named(layer, settings, more));
    Err(Contradiction(format!("{less} is more than {more}: reduce the first, or increase the second")))
}

/// `worker.concurrency = 10 (taskbay.toml, line 3)`
fn named(layer: &Layer, settings: &Settings, path: &str) -> String {
    let value =
        SETTINGS.iter().find(|setting| setting.path() == path).and_then(|setting| (setting.effective)(settings));
    let value = value.map_or_else(String::new, |value| format!(" = {value}"));
    format!("{path}{value} ({})", layer.origin(path))
}
