//! Calls a web hook: asynchronous input and output on the plugin's own runtime, with hundreds of calls at once on one
//! thread.

use std::time::Duration;

use taskbay_plugin::{
    prelude::*,
    tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    },
};

/// The longest answer that is read: enough for a status line and an error message.
const LONGEST_ANSWER: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Webhook {
    /// `http://host:port/path`. For `https` take a client crate such as reqwest instead of the few lines below.
    url: String,
    body: Box<RawValue>,
}

/// Posts a JSON body to a URL.
#[task(timeout = "1m")]
async fn call_webhook(ctx: Context, hook: Webhook) -> TaskResult {
    let (host, path) = split(&hook.url)?;
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = timeout(Duration::from_secs(10), TcpStream::connect(&address))
        .await
        .map_err(|_| TaskError::new(format_args!("{address} did not accept a connection within 10 s")))?
        .map_err(|error| TaskError::from(error).context(&address))?;
    let body = hook.body.get();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         idempotency-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        ctx.id(),
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = status(&answer).ok_or_else(|| TaskError::new(format_args!("{address} did not answer in HTTP")))?;
    match status {
        200..=299 => {
            info!(status, url = %hook.url, "delivered");
            Ok(())
        }
        // The request itself is wrong; sending it again would not mend it.
        400 | 404 | 405 | 410 | 422 => Err(TaskError::discard(format_args!("{} answered {status}", hook.url))),
        _ => Err(TaskError::new(format_args!("{} answered {status}", hook.url))),
    }
}

fn split(url: &str) -> Result<(&str, &str), TaskError> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| TaskError::discard(format_args!("{url} is not an http:// address")))?;
    Ok(rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash)))
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.get(..3)?.parse().ok()
}

plugin!(call_webhook);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_answers_read() {
        assert_eq!(split("http://localhost:80/a/b").unwrap(), ("localhost:80", "/a/b"));
        assert_eq!(split("http://localhost").unwrap(), ("localhost", "/"));
        assert!(split("ftp://localhost").is_err());
        assert_eq!(status("HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status("SSH-2.0"), None);
    }
}
