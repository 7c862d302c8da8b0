//! Gathers notes for each reader: a batch, of which only the failed items are tried again, and a job that comes by itself.
//!
//! ```sql
//! select graphile_worker.add_job('digest', '[{"to": "ada", "note": "3 new orders"}]',
//!                                job_key := 'digest', job_key_mode := 'preserve_run_at', run_at := now() + '1 hour');
//! ```
//!
//! Within the hour, each further call adds its items to the job that waits under the key.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use taskbay_plugin::{
    prelude::*,
    tokio::{fs, io::AsyncWriteExt},
};

/// What `taskbay.toml` may say under this plugin's settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where each reader has a file.
    #[serde(default = "default_folder")]
    folder: PathBuf,
}

fn default_folder() -> PathBuf {
    "digests".into()
}

async fn open(setup: &Setup) -> Result<PathBuf, TaskError> {
    let Settings { folder } = setup.settings()?;
    fs::create_dir_all(&folder).await.or_fail(format_args!("cannot make the folder {}", folder.display()))?;
    Ok(folder)
}

#[derive(Deserialize)]
struct Note {
    to: String,
    note: String,
}

/// Appends each note to its reader's file.
#[task]
async fn digest(ctx: Context<PathBuf>, notes: Vec<Note>) -> BatchResult {
    let mut results = Vec::with_capacity(notes.len());
    for note in &notes {
        results.push(append(ctx.state(), note).await);
    }
    Ok(results)
}

async fn append(folder: &std::path::Path, Note { to, note }: &Note) -> TaskResult {
    if to.is_empty() || !to.chars().all(char::is_alphanumeric) {
        // It will be no better at the next attempt.
        return Err(TaskError::discard(format!("{to:?} cannot be the name of a reader")));
    }
    let path = folder.join(format!("{to}.txt"));
    let opened = fs::File::options().append(true).create(true).open(&path).await;
    let mut file = opened.or_fail(format_args!("cannot open {}", path.display()))?;
    let written = file.write_all(format!("{note}\n").as_bytes()).await;
    written.or_fail(format_args!("cannot write {}", path.display()))?;
    file.flush().await.or_fail(format_args!("cannot write {}", path.display()))
}

/// Removes the files that nobody has written to for a week, each night at four in Berlin.
#[task(name = "digest/clean", schedule = "0 4 * * * ?fill=1d&tz=Europe/Berlin")]
async fn clean(ctx: Context<PathBuf>) -> TaskResult {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let mut files = fs::read_dir(ctx.state()).await.or_fail("cannot list the digests")?;
    while let Some(file) = files.next_entry().await? {
        let written = file.metadata().await?.modified()?;
        if SystemTime::now().duration_since(written).is_ok_and(|age| age > WEEK) {
            fs::remove_file(file.path()).await?;
            info!(file = %file.path().display(), "removed");
        }
    }
    Ok(())
}

plugin! {
    state: open,
    tasks: [digest, clean],
}

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::{TestJob, block_on, setup};

    use super::*;

    #[test]
    fn each_note_has_a_result_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let state = block_on(open(&setup(&json!({ "folder": folder.path() })))).unwrap();
        let note = |to: &str| Note { to: to.to_owned(), note: "hello".to_owned() };
        let notes = vec![note("ada"), note("../etc"), note("ada")];
        let results = block_on(digest(TestJob::with_state(state).context(), notes)).unwrap();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert!(results[1].as_ref().is_err_and(TaskError::is_discard));
        assert_eq!(std::fs::read_to_string(folder.path().join("ada.txt")).unwrap(), "hello\nhello\n");
    }
}
