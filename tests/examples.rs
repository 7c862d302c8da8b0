//! The example plugins, each doing what it is an example of.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

/// A database, a folder with one plugin, and a place for what its tasks write.
struct Workplace {
    database: TestDatabase,
    folder: TempDir,
    files: TempDir,
}

impl Workplace {
    async fn with(plugin: &str) -> Self {
        let (database, folder, files) = (TestDatabase::installed().await, tasks_folder(), tempfile::tempdir().unwrap());
        install_plugin(folder.path(), plugin);
        Self { database, folder, files }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, settings: &str) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path()).settings(settings)
    }

    async fn run_once(&self, settings: &str) -> Running {
        let mut host = self.run(settings).arg("--once").spawn();
        assert!(host.ended().await.success());
        host
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn send_email_writes_a_message_and_discards_a_bad_address() {
    let place = Workplace::with("send-email").await;
    let outbox = place.file("outbox");
    let sent =
        place.database.add("send_email", json!({"to": "ada@example.com", "subject": "Hello", "body": "Hi"})).await;
    let bad = place.database.add("send_email", json!({"to": "a@b\r\nBcc: all@b", "subject": "x"})).await;
    place.run_once(&format!("[plugins.send_email.settings]\noutbox = {outbox:?}\nfrom = \"me@example.com\"")).await;
    let message = read(Path::new(&outbox).join(format!("{sent}.eml")));
    assert!(message.contains("To: ada@example.com") && message.contains("From: me@example.com"), "{message}");
    let job = place.database.only_job().await;
    assert_eq!((job.id, job.attempts), (bad, job.max_attempts), "a bad address is never tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_shares_one_book_between_its_tasks() {
    let place = Workplace::with("ledger").await;
    let statement = place.file("statement.json");
    for (task, payload, priority) in [
        ("ledger/deposit", json!({"account": "ada", "cents": 500}), 0),
        ("ledger/transfer", json!({"from": "ada", "to": "bob", "cents": 200}), 1),
        ("ledger/transfer", json!({"from": "ada", "to": "bob", "cents": 9_000}), 2),
        ("ledger/statement", json!({"account": "bob", "file": statement}), 3),
    ] {
        place
            .database
            .id_of("select (graphile_worker.add_job($1, $2, priority := $3)).id", &[&task, &payload, &priority])
            .await;
    }
    let settings =
        format!("[worker]\nconcurrency = 1\n[plugins.ledger.settings]\nfile = {:?}", place.file("book.jsonl"));
    place.run_once(&settings).await;
    let statement: Value = serde_json::from_str(&read(statement)).unwrap();
    assert_eq!(statement["cents"], 200);
    let refused = place.database.only_job().await;
    assert_eq!(refused.task, "ledger/transfer");
    assert_eq!(refused.attempts, 1, "what is not there may be there later");
    assert!(refused.last_error.as_ref().unwrap().contains("ada"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_posts_and_tells_a_lasting_refusal_from_a_passing_one() {
    let place = Workplace::with("webhook").await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let mut requests = Vec::new();
        while requests.len() < 3 {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let status = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            requests.push(request);
        }
        requests
    });
    for status in [204, 404, 503] {
        let url = format!("http://{address}/{status}");
        place.database.add("webhook", json!({"url": url, "body": {"status": status}})).await;
    }
    place.run_once("").await;
    let requests = answering.await.unwrap();
    assert!(
        requests.iter().all(|request| request.starts_with("POST /") && request.contains("x-job-id: ")),
        "{requests:?}"
    );
    let jobs = place.database.jobs().await;
    let error = |job: &crate::harness::jobs::JobRow| job.last_error.clone().unwrap();
    assert_eq!(jobs.len(), 2);
    assert!(error(&jobs[0]).contains("404") && jobs[0].attempts == jobs[0].max_attempts, "{jobs:?}");
    assert!(error(&jobs[1]).contains("503") && jobs[1].attempts == 1, "{jobs:?}");
}

/// Reads one request, whose body ends with the only `}` in it.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the connection was not kept");
    }
    String::from_utf8(request).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_keeps_its_connection_and_makes_another_one_when_it_dies() {
    let place = Workplace::with("webhook").await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        let (mut first, _) = server.accept().await.unwrap();
        for _ in 0..2 {
            read_request(&mut first).await;
            first.write_all(answer).await.unwrap();
        }
        let unanswered = read_request(&mut first).await;
        drop(first);
        let (mut second, _) = server.accept().await.unwrap();
        assert_eq!(read_request(&mut second).await, unanswered);
        second.write_all(answer).await.unwrap();
    });
    let host = place.run("").args(["--poll-interval", "50ms"]).spawn();
    for attempt in [1, 1, 2] {
        let id = place.database.add("webhook", json!({"url": url, "body": {"n": 1}})).await;
        if attempt == 2 {
            host.event("job_failed", |line| line["job"] == id).await;
            place.database.execute("update graphile_worker._private_jobs set run_at = now()").await;
        }
        host.event("job_done", |line| line["job"] == id && line["attempt"] == attempt).await;
    }
    serving.await.unwrap();
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_file_writes_what_sha256sum_would() {
    let place = Workplace::with("hash-file").await;
    let file = place.file("abc");
    fs::write(&file, "abc").unwrap();
    place.database.add("hash_file", json!({"path": file})).await;
    let missing = place.database.add("hash_file", json!({"path": place.file("missing")})).await;
    place.run_once("").await;
    let sum = read(format!("{file}.sha256"));
    assert!(sum.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{sum}");
    let job = place.database.only_job().await;
    assert_eq!(job.id, missing);
    assert!(job.last_error.unwrap().contains("missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn import_csv_adds_a_job_for_each_row_and_reports_progress() {
    let place = Workplace::with("import-csv").await;
    let file = place.file("people.csv");
    let rows: String = (1..=250).map(|n| format!("Person {n},city {n}\n")).collect();
    fs::write(&file, format!("name,city\n{rows}")).unwrap();
    place.database.add("import_csv", json!({"path": file})).await;
    let host = place.run_once("[worker]\nconcurrency = 20").await;
    place.database.wait_until_no_jobs().await;
    assert_eq!(fs::read_dir(format!("{file}.rows")).unwrap().count(), 250);
    let progress = host.lines().into_iter().filter(|line| line["task"] == "import_csv" && line["level"] == "INFO");
    assert!(progress.count() >= 2, "it tells how far it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_csv_stops_half_way_when_it_is_told_to() {
    let place = Workplace::with("import-csv").await;
    let file = place.file("many.csv");
    let rows: String = (1..=200_000).map(|n| format!("Person {n}\n")).collect();
    fs::write(&file, format!("name\n{rows}")).unwrap();
    let id = place.database.add("import_csv", json!({"path": file})).await;
    let mut host = place.run("[worker]\nabort_timeout = \"1ms\"\nconcurrency = 1").spawn();
    host.event("job_started", |line| line["job"] == id).await;
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    let job = place.database.job(id).await;
    assert!(job.last_error.is_some() && job.attempts == 1 && job.locked_by.is_none(), "{job:?}");
    assert!(place.database.jobs().await.len() < 200_000, "it went on to the end");
}
