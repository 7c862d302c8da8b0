//! The entry points of the fuzz targets for the protocol between the host and a plugin's process, and for manifests.
//! Compiled only for fuzzing.

use std::{io::Write, os::unix::net::UnixStream, pin::Pin, sync::Arc};

use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    AddJob, BuildId, HostServices, JobInput, ManifestInfo, Outcome,
    calls::Call,
    connection::{Connection, Milestone, Start},
    execution::outcome,
    frames::{Frame, FrameReader, MAX_FRAME, kind, push, put_job, put_text, take_job},
};
use crate::events::{Events, PluginBuild};

/// Reads bytes as frames, in pieces of the given lengths. Every frame can be written and read back unchanged.
pub fn frames(bytes: &[u8], pieces: &[u8]) {
    let mut reader = FrameReader::new();
    let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let space = reader.space();
        assert!(!space.is_empty() && space.len() <= MAX_FRAME + 4, "there is room, and not too much");
        let piece = usize::from(*pieces.next().unwrap_or(&u8::MAX)).max(1) * 16;
        let count = piece.min(rest.len()).min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        reader.filled(count);
        rest = &rest[count..];
        let (jobs, mut seen) = (reader.count(kind::RUN), 0);
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    seen += usize::from(frame.kind == kind::RUN);
                    write_again(frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert_eq!(jobs, seen, "as many jobs as were counted");
    }
}

/// Parses the host's messages, and writes them again.
fn write_again(mut frame: Frame<'_>) {
    let (kind, call, whole) = (frame.kind, frame.call, frame.body.rest());
    let mut again = Vec::new();
    let written = match kind {
        kind::RUN => {
            let Ok((task, timeout_ms, job)) = take_job(&mut frame.body) else { return };
            push(&mut again, kind, call, |body| put_job(body, task, timeout_ms, &job))
        }
        kind::JOB_ADDED => {
            let (Ok(ids), Ok(reason)) = (frame.body.text(), frame.body.text()) else { return };
            push(&mut again, kind, call, |body| {
                put_text(body, ids);
                put_text(body, reason);
            })
        }
        // The others are a number, or go the other way.
        _ => return,
    };
    written.expect("what came in a frame fits into one");
    let read = &whole[..whole.len() - frame.body.rest().len()];
    assert_eq!(&again[again.len() - read.len()..], read, "what was read is what was written");
}

/// The jobs running while the bytes arrive.
const JOBS: usize = 3;

/// Sends arbitrary bytes to the host as a plugin's process, and closes the connection. Every job must then have ended.
pub fn plugin_process(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(listen(bytes)));
}

async fn listen(bytes: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket that does not block");
    let services =
        HostServices { add_job: Arc::new(Store), events: Events::default(), program: "/proc/self/exe".into() };
    let (milestones, mut launch) = mpsc::unbounded_channel();
    let build = PluginBuild { plugin: "p".to_owned(), build: BuildId([1; 32]) };
    let (connection, _ends) = Connection::open(ours, build, Some(&services), milestones).expect("a line");
    let calls: Vec<Call> = (0..JOBS).map(|number| start(&connection, number)).collect();
    theirs.write_all(bytes).expect("the socket holds all of it");
    drop(theirs);
    connection.closed().await;
    connection.fail_calls("gone");
    for mut call in calls {
        let end = call.end_unless(&[]).await.expect("no signal ends it");
        if let Outcome::PartlyFailed { items, .. } = outcome(end, None) {
            for last in [false, true] {
                let (left, _) = items.left(last);
                assert!(!left.is_empty() && left.iter().all(|item| *item < items.items()));
            }
        }
    }
    while let Some(step) = launch.recv().await {
        if let Milestone::Loaded(manifest) = step {
            judge(&manifest);
        }
    }
}

fn start(connection: &Connection, number: usize) -> Call {
    let job = JobInput {
        id: 1,
        task: "",
        attempt: 1,
        max_attempts: 1,
        priority: 0,
        revision: 0,
        run_at_us: 0,
        created_at_us: 0,
        updated_at_us: 0,
        payload: "{}",
        queue: None,
        key: None,
        last_error: None,
        flags: None,
    };
    match connection.start(number as u32, &job, None, &|| {}) {
        Ok(Start::Begun(call)) => call,
        other => panic!("the line is open, and has room: {other:?}"),
    }
}

/// Stores every second job or so, whatever it is.
#[derive(Debug)]
struct Store;

impl AddJob for Store {
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async move { if spec.len().is_multiple_of(2) { Ok(1) } else { Err("no".to_owned()) } })
    }
}

/// Reads a plugin's manifest as the host does.
pub fn manifest(json: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice(json) {
        judge(&manifest);
    }
}

/// What is accepted has names that can be shown, and arrives at the other end as it is.
fn judge(manifest: &ManifestInfo) {
    match manifest.validate() {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(()) => {
            let shown = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace());
            assert!(manifest.tasks.iter().all(|task| shown(&task.name)));
            let again = serde_json::to_vec(manifest).expect("it came as JSON");
            assert_eq!(serde_json::from_slice::<ManifestInfo>(&again).ok().as_ref(), Some(manifest));
        }
    }
}
