//! Tests of the messages on a connection and their effects.

use std::{io::Write, pin::Pin};

use tokio::sync::watch;

use super::*;
use crate::{
    events::Events,
    plugin::{BuildId, calls::CallEnd, frames::push},
};

type Opened = (Arc<Connection>, Ends, UnixStream, mpsc::UnboundedReceiver<Milestone>);

fn open(services: Option<&HostServices>) -> Opened {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (milestones, launch) = mpsc::unbounded_channel();
    let build = PluginBuild { plugin: "p".to_owned(), build: BuildId([1; 32]) };
    ours.set_nonblocking(true).unwrap();
    let (connection, ends) = Connection::open(ours, build, services, milestones).unwrap();
    (connection, ends, theirs, launch)
}

/// Stores a job when permitted.
#[derive(Debug)]
struct SlowStore {
    allowed: Semaphore,
    asked: watch::Sender<usize>,
}

impl AddJob for SlowStore {
    fn add_job(&self, _: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async {
            self.asked.send_modify(|asked| *asked += 1);
            self.allowed.acquire().await.map_err(|error| error.to_string())?.forget();
            Ok(1)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_adds_jobs_faster_than_they_are_stored_is_not_read_any_further() {
    const MIB: usize = 1 << 20;
    let store = Arc::new(SlowStore { allowed: Semaphore::new(0), asked: watch::Sender::new(0) });
    let (add_job, events, program) = (Arc::clone(&store) as _, Events::default(), "/proc/self/exe".into());
    let (_connection, _ends, mut theirs, _launch) = open(Some(&HostServices { add_job, events, program }));
    let asking = std::thread::spawn(move || {
        for request in 0..100_u64 {
            let mut bytes = Vec::new();
            push(&mut bytes, kind::ADD_JOB, 0, |body| {
                body.extend_from_slice(&request.to_le_bytes());
                put_text(body, Some(&"x".repeat(MIB)));
            })
            .unwrap();
            theirs.write_all(&bytes).unwrap();
        }
        theirs
    });
    let most = MOST_ADDED as usize / MIB;
    let mut asked = store.asked.subscribe();
    asked.wait_for(|asked| *asked >= most).await.unwrap();
    for stored in 1..=100 - most {
        store.allowed.add_permits(1);
        asked.wait_for(|asked| *asked >= most + stored).await.unwrap();
        assert_eq!(*asked.borrow(), most + stored, "no more is under way than may be");
    }
    drop(asking.join().unwrap());
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
async fn a_process_that_sends_malformed_messages_is_terminated() {
    let mut unknown = Vec::new();
    push(&mut unknown, 99, 0, |_| ()).unwrap();
    let mut short = Vec::new();
    push(&mut short, kind::ENDED, 1, |body| body.push(1)).unwrap();
    for (bytes, said) in
        [(unknown, "unknown kind 99"), (short, "a malformed message"), (vec![255; 64], "a malformed message")]
    {
        let (connection, _ends, mut theirs, _launch) = open(None);
        theirs.write_all(&bytes).unwrap();
        connection.closed().await;
        connection.terminated().await;
        assert!(connection.verdict().unwrap().contains(said), "{:?}", connection.verdict());
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_still_counts() {
    let (connection, _ends, mut theirs, mut launch) = open(None);
    let start = |payload| match connection.start(0, &job(payload), None, &|| {}).unwrap() {
        Start::Begun(call) => Some(call),
        Start::Gone | Start::Full => None,
    };
    let (mut first, mut second) = (start("1").unwrap(), start("2").unwrap());
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
    assert!(start("3").is_none());
}
