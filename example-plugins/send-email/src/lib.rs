//! Sends e-mail: the example to copy. One task, a typed payload, state that is built once from the plugin's settings.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use taskbay_plugin::{prelude::*, tokio};

/// From `[plugins.send_email.settings]` in `taskbay.toml`.
#[derive(Deserialize)]
struct Settings {
    /// Where messages go: a mail server's pick-up folder.
    #[serde(default = "outbox")]
    outbox: PathBuf,
    #[serde(default = "sender")]
    from: String,
}

#[derive(Deserialize)]
struct SendEmail {
    to: String,
    subject: String,
    #[serde(default)]
    body: String,
}

fn outbox() -> PathBuf {
    PathBuf::from("outbox")
}

fn sender() -> String {
    "taskbay@localhost".to_owned()
}

async fn open_outbox(setup: Setup) -> Result<Settings, TaskError> {
    let settings: Settings = setup.settings()?;
    tokio::fs::create_dir_all(&settings.outbox).await?;
    Ok(settings)
}

/// Sends one e-mail.
#[task(timeout = "30s", max_attempts = 5)]
async fn send_email(ctx: Context<Settings>, mail: SendEmail) -> TaskResult {
    if !mail.to.contains('@') {
        return Err(TaskError::discard(format_args!("{} is not an e-mail address", mail.to)));
    }
    let settings = ctx.state();
    // Written beside and renamed, so that the mail server never picks up half a message; named by the job, so that a
    // second attempt replaces the message of the first.
    let file = settings.outbox.join(format!("{}.eml", ctx.id()));
    let unfinished = file.with_extension("part");
    tokio::fs::write(&unfinished, message(&settings.from, &mail, SystemTime::now())).await?;
    tokio::fs::rename(&unfinished, &file).await?;
    info!(to = %mail.to, subject = %mail.subject, "sent");
    Ok(())
}

fn message(from: &str, mail: &SendEmail, sent: SystemTime) -> String {
    let unix = sent.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let one_line = |text: &str| text.replace(['\r', '\n'], " ");
    format!(
        "From: {from}\r\nTo: {}\r\nSubject: {}\r\nX-Sent: {unix}\r\n\r\n{}\r\n",
        one_line(&mail.to),
        one_line(&mail.subject),
        mail.body
    )
}

plugin! { tasks: [send_email], state: open_outbox }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_a_header_does_not_make_another_header() {
        let mail = SendEmail { to: "a@b.c".into(), subject: "Hi\r\nBcc: all@b.c".into(), body: String::new() };
        assert!(message("me@b.c", &mail, SystemTime::UNIX_EPOCH).contains("Subject: Hi  Bcc: all@b.c\r\n"));
    }
}
