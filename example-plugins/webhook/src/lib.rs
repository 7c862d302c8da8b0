//! Posts a job's payload to a web server, asynchronously: one thread serves any number of slow servers at once.
//!
//! All jobs share one client, the plugin's state, which keeps its connections. A connection that has died costs at most the
//! attempt of the job that was using it: the client makes another one.

use std::{collections::BTreeMap, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{CONTENT_TYPE, USER_AGENT},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use taskbay_plugin::prelude::*;

/// The state of the plugin.
struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

fn open(_: &Setup) -> Result<Http, TaskError> {
    let mut client = Client::builder(TokioExecutor::new());
    // Servers close connections that nobody uses. To close them sooner leaves few to be found dead.
    client.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(20)).pool_max_idle_per_host(8);
    Ok(Http { client: client.build_http() })
}

#[derive(Deserialize)]
struct Webhook {
    url: String,
    body: Box<RawJson>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Posts JSON to an `http` address.
#[task(timeout = "15s", max_attempts = 10)]
async fn webhook(ctx: Context<Http>, hook: Webhook) -> TaskResult {
    let uri: Uri = hook.url.parse().or_discard(format_args!("`{}` is not an address", hook.url))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err(TaskError::discard(format_args!("`{}` is not an http address", hook.url)));
    }
    let status = post(&ctx, &uri, &hook).await.or_fail(format_args!("cannot post to {uri}"))?;
    info!(url = hook.url, status = status.as_u16(), "posted");
    judge(status)
}

async fn post(ctx: &Context<Http>, uri: &Uri, hook: &Webhook) -> Result<StatusCode, TaskError> {
    let mut request = Request::post(uri)
        .header(USER_AGENT, concat!("taskbay-webhook/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        // The receiver can tell by this that it has seen a delivery before.
        .header("x-job-id", ctx.id());
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(hook.body.get().to_owned()))).or_discard("bad headers")?;
    let response = ctx.state().client.request(request).await?;
    let status = response.status();
    // Only a connection whose answer was read to its end can serve the next job.
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

plugin! {
    state: open,
    tasks: [webhook],
}

#[cfg(test)]
mod tests {
    use taskbay_plugin::{
        testing::{TestJob, block_on, setup},
        tokio::{
            self,
            io::{AsyncReadExt, AsyncWriteExt},
            net::TcpListener,
        },
    };

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// Takes one connection and serves a request on it with each of these answers; then it is gone. Gives the requests' texts.
    async fn serve(listener: &TcpListener, answers: &[&str]) -> Vec<String> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the connection was not kept");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            requests.push(String::from_utf8(request).unwrap());
        }
        requests
    }

    async fn listen() -> TcpListener {
        TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
    }

    fn job() -> TestJob<Http> {
        TestJob::with_state(open(&setup(&json!({}))).unwrap()).id(7)
    }

    fn hook(listener: &TcpListener) -> Webhook {
        let url = format!("http://{}/hooks?a=1", listener.local_addr().unwrap());
        let body = RawJson::from_string(r#"{"n": 9007199254740993}"#.to_owned()).unwrap();
        Webhook { url, body, headers: BTreeMap::from([("x-key".to_owned(), "secret".to_owned())]) }
    }

    async fn deliver(answer: &str) -> (TaskResult, Vec<String>) {
        let (listener, job, answers) = (listen().await, job(), [answer]);
        tokio::join!(webhook(job.context(), hook(&listener)), serve(&listener, &answers))
    }

    #[test]
    fn the_body_is_posted_as_it_is() {
        let (result, requests) = block_on(deliver(OK));
        result.unwrap();
        let request = &requests[0];
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
    fn jobs_share_a_connection_and_its_death_costs_one_attempt() {
        block_on(async {
            let (listener, job) = (listen().await, job());
            let jobs = async {
                for _ in 0..2 {
                    webhook(job.context(), hook(&listener)).await.unwrap();
                }
                // The server hangs up instead of answering.
                let error = webhook(job.context(), hook(&listener)).await.unwrap_err();
                assert!(error.to_string().starts_with("cannot post to http://127.0.0.1:"), "{error}");
                assert!(!error.is_discard());
                for _ in 0..2 {
                    webhook(job.context(), hook(&listener)).await.unwrap();
                }
            };
            let server = async {
                serve(&listener, &[OK, OK, ""]).await;
                serve(&listener, &[OK, OK]).await;
            };
            tokio::join!(jobs, server);
        });
    }
}
