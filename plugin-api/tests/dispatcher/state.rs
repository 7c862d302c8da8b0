//! A plugin's state: built before the first job, seen by the tasks, torn down after the last.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use taskbay_abi::{INIT_CALL, STATUS_DISCARD, STATUS_ERROR, STATUS_OK, STATUS_PANIC};
use taskbay_plugin::{prelude::*, private::plugin_header, tokio};

use crate::fake_host::{DEADLINE, FakeHost};

struct Ledger {
    opened_with: String,
    entries: Mutex<Vec<String>>,
}

#[derive(Deserialize)]
struct Settings {
    currency: String,
}

static STORY: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn tell(what: &str) {
    // All of a state's life is spent inside the plugin's runtime.
    tokio::runtime::Handle::current();
    STORY.lock().unwrap().push(what.to_owned());
}

async fn open(setup: &Setup) -> Result<Ledger, TaskError> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let settings: Settings = setup.settings()?;
    tell("opened");
    Ok(Ledger { opened_with: settings.currency, entries: Mutex::default() })
}

async fn close(ledger: &Ledger) -> Result<(), std::io::Error> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    tell(&format!("closed with {:?}", ledger.entries.lock().unwrap()));
    Err(std::io::Error::other("the printer is on fire"))
}

impl Drop for Ledger {
    fn drop(&mut self) {
        tell("dropped");
    }
}

#[task]
async fn book(ctx: Context<Ledger>, entry: String) -> TaskResult {
    let ledger = ctx.state();
    ledger.entries.lock().unwrap().push(format!("{entry} {}", ledger.opened_with));
    Ok(())
}

struct Told;

impl Drop for Told {
    fn drop(&mut self) {
        tell("job ended");
    }
}

#[task]
async fn endless(ctx: Context<Ledger>) {
    let _told = Told;
    info!("endless began with {}", ctx.state().opened_with);
    std::future::pending::<()>().await;
}

#[task]
async fn stateless(_ctx: Context) {}

#[test]
fn a_state_lives_from_before_the_first_job_until_after_the_last() {
    let plugin = plugin_header! { state: open, teardown: close, tasks: [book, endless, stateless], worker_threads: 2 };
    let host = FakeHost::init(plugin, r#"{"currency": "EUR"}"#);
    assert_eq!(host.outcome(INIT_CALL).status, STATUS_OK);
    assert_eq!(host.run("book", "\"12\"").status, STATUS_OK);
    assert_eq!(host.run("stateless", "null").status, STATUS_OK);
    host.begin("endless", "null");
    host.line("endless began with EUR");
    assert_eq!(host.shutdown(DEADLINE), 0);
    let story = STORY.lock().unwrap().clone();
    assert_eq!(story, ["opened", "job ended", "closed with [\"12 EUR\"]", "dropped"]);
    assert_eq!(host.line("tear down").message, "cannot tear down the plugin's state: the printer is on fire");
}

#[test]
fn settings_that_do_not_fit_fail_the_start_up() {
    let plugin = plugin_header! { state: open, tasks: [book] };
    let host = FakeHost::init(plugin, r#"{"currency": 5}"#);
    let ended = host.outcome(INIT_CALL);
    // Another try would meet the same settings.
    assert_eq!(ended.status, STATUS_DISCARD);
    let message = "the settings of the plugin `taskbay-plugin` do not fit: `currency`: invalid type: integer `5`, \
                   expected a string";
    assert_eq!(ended.message, message);

    let call = host.begin("book", "\"12\"");
    assert_eq!(host.outcome(call).message, "the plugin has not finished starting");
    assert_eq!(host.shutdown(DEADLINE), 0);
}

fn explode(_: &Setup) -> Result<u32, std::fmt::Error> {
    panic!("no fuse")
}

fn refuse(_: &Setup) -> Result<u32, &'static str> {
    std::thread::sleep(Duration::from_millis(1));
    Err("closed today")
}

async fn hang(_: &Setup) -> Result<u32, TaskError> {
    std::future::pending().await
}

fn number(_: &Setup) -> Result<u32, TaskError> {
    Ok(7)
}

fn forget(number: &u32) {
    assert_eq!(*number, 8, "the number was {number}");
}

#[task]
fn read_number(ctx: Context<u32>) -> TaskResult {
    bail!("the number is {}", ctx.state())
}

#[test]
fn a_state_function_that_fails_or_panics_fails_the_start_up() {
    let ended = FakeHost::init(plugin_header! { state: refuse, tasks: [stateless] }, "{}").outcome(INIT_CALL);
    assert_eq!((ended.status, &*ended.message), (STATUS_ERROR, "closed today"));
    let ended = FakeHost::init(plugin_header! { state: explode, tasks: [stateless] }, "{}").outcome(INIT_CALL);
    assert_eq!(ended.status, STATUS_PANIC);
    assert!(ended.message.ends_with(": no fuse") && ended.message.contains("state.rs:"), "{}", ended.message);
}

#[test]
fn a_shutdown_during_the_start_up_ends_it() {
    let host = FakeHost::init(plugin_header! { state: hang, tasks: [stateless] }, "{}");
    let begun = Instant::now();
    assert_eq!(host.shutdown(DEADLINE * 2), 0);
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(host.outcome(INIT_CALL).message, "shut down while starting");
}

#[test]
fn plain_functions_build_and_end_a_state_too() {
    let host = FakeHost::serving(plugin_header! { state: number, teardown: forget, tasks: [read_number] });
    assert_eq!(host.run("read_number", "null").message, "the number is 7");
    assert_eq!(host.shutdown(DEADLINE), 0);
    let message = host.line("tear down").message;
    assert!(message.contains("the number was 7"), "{message}");
}
