//! Puts e-mails into an outbox folder, from where a mail server picks them up. The plugin to copy for a start.

use std::path::PathBuf;

use taskbay_plugin::{prelude::*, tokio::fs};

/// What `taskbay.toml` may say under this plugin's settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_outbox")]
    outbox: PathBuf,
    #[serde(default = "default_from")]
    from: String,
}

fn default_outbox() -> PathBuf {
    "outbox".into()
}

fn default_from() -> String {
    "taskbay@localhost".to_owned()
}

/// Made once for each build of the plugin, and shared by its jobs.
struct Outbox {
    folder: PathBuf,
    from: String,
}

async fn open(setup: &Setup) -> Result<Outbox, TaskError> {
    let settings: Settings = setup.settings()?;
    let made = fs::create_dir_all(&settings.outbox).await;
    made.or_fail(format_args!("cannot make the outbox {}", settings.outbox.display()))?;
    Ok(Outbox { folder: settings.outbox, from: settings.from })
}

#[derive(Deserialize)]
struct SendEmail {
    to: String,
    subject: String,
    #[serde(default)]
    body: String,
}

/// Sends one e-mail.
#[task(timeout = "30s", max_attempts = 5)]
async fn send_email(ctx: Context<Outbox>, mail: SendEmail) -> TaskResult {
    let text = message(&ctx.state().from, &mail)?;
    // The job's id in the name makes a second attempt replace the first instead of sending twice, and the renaming shows
    // the mail server only whole messages.
    let unfinished = ctx.state().folder.join(format!(".{}.eml", ctx.id()));
    let finished = ctx.state().folder.join(format!("{}.eml", ctx.id()));
    fs::write(&unfinished, text).await.or_fail(format_args!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, &finished).await.or_fail(format_args!("cannot write {}", finished.display()))?;
    info!(to = %mail.to, subject = %mail.subject, file = %finished.display(), "sent");
    Ok(())
}

fn message(from: &str, mail: &SendEmail) -> Result<String, TaskError> {
    for (field, value) in [("to", &mail.to), ("subject", &mail.subject)] {
        if value.contains(['\r', '\n']) {
            // A line break would let the payload write header lines of its own, and it will be there at every attempt.
            return Err(TaskError::discard(format_args!("`{field}` has a line break in it")));
        }
    }
    let SendEmail { to, subject, body } = mail;
    let body = body.replace("\r\n", "\n").replace('\n', "\r\n");
    let kind = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit";
    Ok(format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n{kind}\r\n\r\n{body}\r\n"))
}

plugin! {
    state: open,
    tasks: [send_email],
}

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::{TestJob, block_on, setup};

    use super::*;

    fn mail(subject: &str) -> SendEmail {
        SendEmail { to: "ada@example.org".to_owned(), subject: subject.to_owned(), body: "Hello\nAda".to_owned() }
    }

    #[test]
    fn a_mail_lands_in_the_outbox_once_however_often_its_job_runs() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = block_on(open(&setup(&json!({ "outbox": folder.path(), "from": "bot@example.org" })))).unwrap();
        let job = TestJob::with_state(outbox).id(7);
        for _ in 0..2 {
            block_on(send_email(job.context(), mail("Grüße"))).unwrap();
        }
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files, [folder.path().join("7.eml")]);
        let text = std::fs::read_to_string(&files[0]).unwrap();
        assert!(text.starts_with("From: bot@example.org\r\nTo: ada@example.org\r\nSubject: Grüße\r\n"));
        assert!(text.ends_with("\r\n\r\nHello\r\nAda\r\n"));
    }

    #[test]
    fn a_payload_cannot_add_header_lines() {
        let error = message("bot@example.org", &mail("Hi\r\nBcc: everybody@example.org")).unwrap_err();
        assert!(error.is_discard());
        assert_eq!(error.to_string(), "`subject` has a line break in it");
    }
}
