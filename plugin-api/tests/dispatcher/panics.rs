//! A panic fails its job, with its message and place, and nobody else's.

use taskbay_abi::{INIT_CALL, STATUS_OK, STATUS_PANIC};
use taskbay_plugin::{prelude::*, private::plugin_header};

use crate::fake_host::FakeHost;

const PLACE: u32 = line!() + 4;

#[task]
async fn with_text(text: String) {
    panic!("bad payload {text:?}");
}

#[task]
async fn after_an_await() {
    tokio::task::yield_now().await;
    let nothing: Option<u32> = std::hint::black_box(None);
    nothing.unwrap();
}

#[task]
fn plain() {
    panic!("plain and simple");
}

#[task]
async fn with_a_number() {
    std::panic::panic_any(7_u32);
}

#[task]
async fn resumed() {
    std::panic::resume_unwind(Box::new("carried on"));
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped badly");
    }
}

#[task]
async fn destructor() {
    let _bad = PanicsOnDrop;
    std::future::pending::<()>().await;
}

#[task]
async fn fine() {}

#[task]
async fn in_a_thread() -> TaskResult {
    let thread = std::thread::Builder::new().name("helper".to_owned()).spawn(|| panic!("in the thread"))?;
    match thread.join() {
        Ok(()) => Ok(()),
        Err(_) => bail!("the thread panicked"),
    }
}

#[task]
async fn in_spawned_work(ctx: Context) -> TaskResult {
    Ok(ctx.spawn(async { panic!("beside the task") }).await?)
}

#[test]
fn a_panic_becomes_the_outcome_of_its_job() {
    let host =
        FakeHost::serving(plugin_header!(with_text, after_an_await, plain, with_a_number, resumed, destructor, fine));
    let panicked = |task: &str, payload: &str| {
        let ended = host.run(task, payload);
        assert_eq!(ended.status, STATUS_PANIC, "{ended:?}");
        ended.message
    };
    let message = panicked("with_text", "\"x\"");
    let place = format!("panics.rs:{PLACE}:5: bad payload \"x\"");
    assert!(message.starts_with("panicked at ") && message.ends_with(&place), "{message}");
    assert!(panicked("after_an_await", "null").ends_with(": called `Option::unwrap()` on a `None` value"));
    assert!(panicked("plain", "null").ends_with(":5: plain and simple"));
    assert!(panicked("with_a_number", "null").ends_with(": (with a value that is not text)"));
    assert_eq!(panicked("resumed", "null"), "panicked: carried on");

    let call = host.begin("destructor", "null");
    host.cancel(call, taskbay_abi::CANCEL_ABORT);
    assert_eq!(host.outcome(call).status, taskbay_abi::STATUS_CANCELLED);

    assert_eq!(host.run("fine", "null").status, STATUS_OK);
}

#[test]
fn a_panic_that_is_no_jobs_outcome_is_logged() {
    let host = FakeHost::serving(plugin_header!(in_a_thread, in_spawned_work));
    assert_eq!(host.run("in_a_thread", "null").message, "the thread panicked");

    let call = host.begin("in_spawned_work", "null");
    assert!(host.outcome(call).message.contains("panicked"));
    let line = host.line("beside the task");
    assert_eq!((line.call, line.level), (call, taskbay_abi::LEVEL_ERROR));
    assert!(line.message.starts_with("thread `tb:taskbay-plugin` panicked at "), "{}", line.message);
    assert_ne!(line.call, INIT_CALL);
}
