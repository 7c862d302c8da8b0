//! The line to a plugin's process, with a process that sends what it should not, or ends.

use super::*;
use crate::plugin::{BuildId, calls::CallEnd};

fn open() -> (Arc<Connection>, Ends, UnixStream, mpsc::UnboundedReceiver<Milestone>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (milestones, launch) = mpsc::unbounded_channel();
    let build = PluginBuild { plugin: "p".to_owned(), build: BuildId([1; 32]) };
    ours.set_nonblocking(true).unwrap();
    let (connection, ends) = Connection::open(ours, build, None, milestones).unwrap();
    (connection, ends, theirs, launch)
}

fn job(payload: &str) -> JobInput<'_> {
    JobInput {
        id: 1,
        task: "",
        attempt: 1,
        max_attempts: 1,
        priority: 0,
        revision: 0,
        run_at_us: 0,
        created_at_us: 0,
        updated_at_us: 0,
        payload,
        queue: None,
        key: None,
        last_error: None,
        flags: None,
    }
}

#[tokio::test]
async fn a_process_that_sends_nonsense_is_condemned() {
    let mut unknown = Vec::new();
    push(&mut unknown, 99, 0, |_| ()).unwrap();
    let mut short = Vec::new();
    push(&mut short, kind::ENDED, 1, |body| body.push(1)).unwrap();
    for (bytes, said) in [(unknown, "unknown kind 99"), (short, "makes no sense"), (vec![255; 64], "makes no sense")] {
        let (connection, _ends, mut theirs, _launch) = open();
        theirs.write_all(&bytes).unwrap();
        connection.closed().await;
        connection.condemned().await;
        assert!(connection.verdict().unwrap().contains(said), "{:?}", connection.verdict());
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_still_counts() {
    let (connection, _ends, mut theirs, mut launch) = open();
    let mut first = connection.start(0, &job("1"), None).unwrap().unwrap();
    let mut second = connection.start(0, &job("2"), None).unwrap().unwrap();
    let mut bytes = Vec::new();
    push(&mut bytes, kind::READY, 0, |_| ()).unwrap();
    push(&mut bytes, kind::ENDED, first.id, |body| {
        body.extend_from_slice(&0_u32.to_le_bytes());
        put_text(body, None);
        put_text(body, None);
    })
    .unwrap();
    theirs.write_all(&bytes).unwrap();
    drop(theirs);
    connection.closed().await;
    assert!(matches!(launch.recv().await, Some(Milestone::Ready)));
    assert!(launch.recv().await.is_none(), "the launch hears of the end");
    assert_eq!(connection.fail_calls("gone"), 1);
    let done = CallEnd::Reported { status: 0, message: None, detail: None };
    assert_eq!(first.end_unless(&[]).await, Some(done));
    assert_eq!(second.end_unless(&[]).await, Some(CallEnd::Crashed("gone".to_owned())));
    assert!(connection.start(0, &job("3"), None).unwrap().is_none());
}
