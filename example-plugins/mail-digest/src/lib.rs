//! Gathers notes for people, many in one job, and mails them once a day: a batch task, a schedule, and many jobs at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use taskbay_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_folder")]
    folder: PathBuf,
}

fn default_folder() -> PathBuf {
    "digest".into()
}

/// Holds a folder for each address, and in it a file for each note.
struct Notes {
    folder: PathBuf,
}

fn open(setup: &Setup) -> Result<Notes, TaskError> {
    let Settings { folder } = setup.settings()?;
    fs::create_dir_all(&folder).or_fail(format_args!("cannot make {}", folder.display()))?;
    Ok(Notes { folder })
}

#[derive(Deserialize)]
struct Note {
    to: String,
    /// Tells notes to one person apart, so that one which comes twice is mailed once.
    id: String,
    text: String,
}

/// Keeps notes for the next digest.
///
/// Whoever adds jobs with one key, such as `digest`, gets one job with all the notes. Those that cannot be written now are
/// tried again without the others; those that never can be are named in the job's error and given up.
#[task(name = "digest/note")]
fn note(ctx: Context<Notes>, notes: Vec<Note>) -> BatchResult {
    notes.iter().map(|note| keep(&ctx.state().folder, note)).collect()
}

fn keep(folder: &Path, note: &Note) -> TaskResult {
    for (field, name) in [("to", &note.to), ("id", &note.id)] {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(TaskError::discard(format_args!("`{field}` is {name:?}, which cannot be the name of a file")));
        }
    }
    let folder = folder.join(&note.to);
    fs::create_dir_all(&folder).or_fail(format_args!("cannot make {}", folder.display()))?;
    let file = folder.join(&note.id);
    fs::write(&file, &note.text).or_fail(format_args!("cannot write {}", file.display()))
}

/// Mails each person's notes.
///
/// The schedule adds a job for it every morning, and one for a morning that was missed during the last day.
#[task(name = "digest/send", schedule = "0 7 * * * ?fill=1d&tz=Europe/Berlin")]
fn send(ctx: Context<Notes>) -> TaskResult {
    let (mut mails, mut sent) = (Vec::new(), Vec::new());
    for person in entries(&ctx.state().folder)? {
        let notes = entries(&person)?;
        let Some(first) = notes.first() else { continue };
        let texts = notes.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>();
        let body = texts.or_fail(format_args!("cannot read the notes in {}", person.display()))?.join("\n");
        let mail = json!({ "to": name(&person), "subject": "Your digest", "body": body });
        // Should this attempt end before the notes are removed, the next one's mail takes the place of this one.
        mails.push(NewJob::new("send_email", &mail).key(format!("digest:{}:{}", name(&person), name(first))));
        sent.extend(notes);
    }
    let count = ctx.add_jobs(mails).wait()?.len();
    for file in sent {
        fs::remove_file(&file).or_fail(format_args!("cannot remove {}", file.display()))?;
    }
    info!(mails = count, "sent");
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = listed.or_fail(format_args!("cannot list {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

plugin! {
    state: open,
    tasks: [note, send],
}

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::{TestJob, schedules, setup};

    use super::*;

    fn note_for(to: &str, id: &str) -> Note {
        Note { to: to.to_owned(), id: id.to_owned(), text: format!("note {id}") }
    }

    #[test]
    fn notes_are_kept_and_mailed_once_to_each_person() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let job = TestJob::with_state(open(&setup(&json!({ "folder": folder.path() }))).unwrap());
        let notes = ["1", "2", "1"].map(|id| note_for("ada@example.org", id));
        let kept =
            note(job.context(), notes.into_iter().chain([note_for("../etc", "3"), note_for("bob", "4")]).collect());
        assert_eq!(kept.results().len(), 5);
        let failed: Vec<_> = kept.failed().map(|(index, error)| (index, error.is_discard())).collect();
        assert_eq!(failed, [(3, true)]);

        send(job.context()).unwrap();
        let mails = job.added();
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0]["payload"]["to"], "ada@example.org");
        assert_eq!(mails[0]["payload"]["body"], "note 1\nnote 2");
        assert_eq!(mails[1]["job_key"], "digest:bob:4");
        send(job.context()).unwrap();
        assert_eq!(job.added().len(), 2, "what was sent is not sent again");
        Ok(())
    }

    #[test]
    fn it_is_sent_every_morning() {
        assert_eq!(schedules::<send>(), ["0 7 * * * ?fill=1d&tz=Europe/Berlin"]);
    }
}
