//! Posts a job's payload to a web server, asynchronously: one thread serves any number of slow servers at once.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use taskbay_plugin::{prelude::*, tokio::net::TcpStream};

#[derive(Deserialize)]
struct Webhook {
    url: String,
    body: Box<RawJson>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Posts JSON to an `http` address.
#[task(timeout = "15s", max_attempts = 10)]
async fn webhook(ctx: Context, hook: Webhook) -> TaskResult {
    let uri: Uri = hook.url.parse().or_discard(format_args!("`{}` is not an address", hook.url))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(TaskError::discard(format_args!("`{}` is not an http address", hook.url)));
    };
    let status = post(&ctx, &uri, host, &hook).await.or_fail(format_args!("cannot post to {uri}"))?;
    info!(url = hook.url, status = status.as_u16(), "posted");
    judge(status)
}

async fn post(ctx: &Context, uri: &Uri, host: &str, hook: &Webhook) -> Result<StatusCode, TaskError> {
    let mut request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(USER_AGENT, concat!("taskbay-webhook/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        // The receiver can tell by this that it has seen a delivery before.
        .header("x-job-id", ctx.id());
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(hook.body.get().to_owned()))).or_discard("bad headers")?;

    // The brackets around an IPv6 address belong to the URL, not to the address.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // This moves the bytes until `sender` is gone; if the connection breaks, the request below fails.
    ctx.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Whether another attempt makes sense is up to the answer.
fn judge(status: StatusCode) -> TaskResult {
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(TaskError::new(format_args!("the server answered {status}")))
        }
        _ if status.is_client_error() => {
            Err(TaskError::discard(format_args!("the server answered {status}, as it will next time")))
        }
        _ => Err(TaskError::new(format_args!("the server answered {status}"))),
    }
}

plugin!(webhook);

#[cfg(test)]
mod tests {
    use taskbay_plugin::{
        testing::{TestJob, block_on},
        tokio::{
            self,
            io::{AsyncReadExt, AsyncWriteExt},
            net::TcpListener,
        },
    };

    use super::*;

    /// Serves one request with this answer and gives the request's text.
    async fn serve_one(listener: TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    async fn deliver(answer: &str) -> (TaskResult, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hooks?a=1", listener.local_addr().unwrap());
        let body = RawJson::from_string(r#"{"n": 9007199254740993}"#.to_owned()).unwrap();
        let headers = BTreeMap::from([("x-key".to_owned(), "secret".to_owned())]);
        let job = TestJob::new().id(7);
        tokio::join!(webhook(job.context(), Webhook { url, body, headers }), serve_one(listener, answer))
    }

    #[test]
    fn the_body_is_posted_as_it_is() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (result, request) = block_on(deliver(answer));
        result.unwrap();
        assert!(request.starts_with("POST /hooks?a=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("x-job-id: 7\r\n") && request.contains("x-key: secret\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"n\": 9007199254740993}"), "{request}");
    }

    #[test]
    fn only_an_answer_that_may_change_is_worth_another_attempt() {
        let discarded = |status: &str| {
            let (result, _) = block_on(deliver(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")));
            result.unwrap_err().is_discard()
        };
        assert!(discarded("404 Not Found"));
        assert!(!discarded("429 Too Many Requests"));
        assert!(!discarded("503 Service Unavailable"));
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let (result, _) = block_on(deliver(""));
        assert!(result.unwrap_err().to_string().starts_with("cannot post to http://127.0.0.1:"));
    }
}
