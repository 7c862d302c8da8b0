//! What a process of its own contains.

use super::*;

async fn plugin() -> Plugin {
    Plugin::launch(Isolation::Child).await
}

/// Crashes while another job waits: both fail with the reason, and the plugin serves again without a pause.
async fn crash(task: &'static str, expected: &[&str]) {
    let limit = PluginSettings { memory_limit: Some(256 << 20), ..settings(Isolation::Child) };
    let mut plugin = Plugin::launch_with(image(), &limit).await;
    let beside = plugin.begin("release", &Cancel::default()).await;
    let text = message(plugin.run(task, "{}").await, FailureKind::Crash);
    let build = plugin.generation.build();
    for part in expected.iter().copied().chain([&*format!("plugin raw (build {build}) "), " while it ran this job"]) {
        assert!(text.contains(part), "{task}: {text:?} lacks {part:?}");
    }
    assert_eq!(message(soon(beside).await.unwrap(), FailureKind::Crash), text);
    let (in_flight, delay) = plugin
        .event(|event| match event {
            Event::PluginCrashed { in_flight, restart_in, .. } => Some((in_flight, restart_in)),
            _ => None,
        })
        .await;
    assert_eq!((in_flight, delay), (2, Duration::ZERO));
    plugin.event(|event| matches!(event, Event::PluginRestarted { .. }).then_some(())).await;
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segmentation_fault() {
    crash("segv", &["was killed by signal 11 (SIGSEGV"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort() {
    crash("abort", &["was killed by signal 6 (SIGABRT)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit() {
    crash("exit", &["ended by itself with exit status 3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_overflow() {
    crash("overflow", &["stack overflow"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_without_end() {
    crash("allocate", &["memory allocation of", "(its memory limit is 268435456 bytes)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_spins_is_ended_with_its_process() {
    let mut plugin = plugin().await;
    let beside = plugin.begin("release", &Cancel::default()).await;
    let text = message(plugin.run("spin-limited", "{}").await, FailureKind::Timeout);
    assert!(text.starts_with("did not finish within 200ms"), "{text}");
    let other = message(soon(beside).await.unwrap(), FailureKind::Crash);
    assert!(other.contains("was stopped because job 42 (task spin-limited) did not end"), "{other}");
    plugin.event(|event| matches!(event, Event::PluginRestarted { .. }).then_some(())).await;
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_plugins_do_not_notice() {
    let (crashing, steady) = (plugin().await, plugin().await);
    let beside = tokio::spawn(async move {
        for n in 0..2_000 {
            let text = message(steady.run("echo", &n.to_string()).await, FailureKind::Error);
            assert_eq!(text, n.to_string());
        }
        steady.generation.retire().await;
    });
    for _ in 0..3 {
        message(crashing.run("segv", "{}").await, FailureKind::Crash);
        crashing.serving().await;
    }
    soon(beside).await.unwrap();
    crashing.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashing_over_and_over_ends_in_quarantine() {
    let mut plugin = plugin().await;
    let mut delays = Vec::new();
    for _ in 0..4 {
        message(plugin.run("segv", "{}").await, FailureKind::Crash);
        let delay = |event| match event {
            Event::PluginCrashed { restart_in, .. } => Some(restart_in.as_millis()),
            _ => None,
        };
        delays.push(plugin.event(delay).await);
        assert_eq!(plugin.run("ok", "{}").await, Outcome::NotStarted, "nothing serves while it is down");
        plugin.event(|event| matches!(event, Event::PluginRestarted { .. }).then_some(())).await;
    }
    assert_eq!(delays, [0, 100, 200, 400]);
    message(plugin.run("segv", "{}").await, FailureKind::Crash);
    let mut availability = plugin.generation.availability();
    soon(availability.wait_for(|now| matches!(now, Availability::Quarantined { .. }))).await.unwrap();
    let reason = |event| match event {
        Event::PluginQuarantined { reason, .. } => Some(reason),
        _ => None,
    };
    assert!(plugin.event(reason).await.contains("SIGSEGV"));
    assert_eq!(plugin.run("ok", "{}").await, Outcome::NotStarted);
    soon(plugin.generation.retire()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_crashes_while_it_drains_does_not_come_back() {
    let plugin = plugin().await;
    let pid: u32 = message(plugin.run("pid", "{}").await, FailureKind::Error).parse().unwrap();
    let running = plugin.begin("release", &Cancel::default()).await;
    let generation = Arc::clone(&plugin.generation);
    let retiring = tokio::spawn(async move { generation.retire().await });
    rustix::process::kill_process(process(pid), rustix::process::Signal::ABORT).unwrap();
    message(soon(running).await.unwrap(), FailureKind::Crash);
    soon(retiring).await.unwrap();
}

/// A service manager sends its stop signal to all processes of the service, and a terminal to all of its group.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_is_for_the_host() {
    let plugin = plugin().await;
    let pid = message(plugin.run("pid", "{}").await, FailureKind::Error);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(process(pid.parse().unwrap()), signal).unwrap();
    }
    assert_eq!(plugin.run("pid", "{}").await, failed(FailureKind::Error, &pid));
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_becomes_events() {
    let mut plugin = plugin().await;
    assert_eq!(plugin.run("print", "hello").await, Outcome::Done);
    let mut lines = Vec::new();
    for _ in 0..2 {
        let line = |event| match event {
            Event::PluginOutput { error, line, .. } => Some((error, line)),
            _ => None,
        };
        lines.push(plugin.event(line).await);
    }
    lines.sort();
    assert_eq!(lines, [(false, "hello to stdout".to_owned()), (true, "hello to stderr".to_owned())]);
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_fits_no_frame_fails_its_job_only() {
    let plugin = plugin().await;
    let text = message(plugin.run("echo", &"x".repeat(65 << 20)).await, FailureKind::Error);
    assert!(text.starts_with("the job is too large for its plugin's process"), "{text}");
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    let longest = "x".repeat(60 << 20);
    assert_eq!(message(plugin.run("echo", &longest).await, FailureKind::Error).len(), 1 << 20, "a message is cut");
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_it_ends_its_process() {
    let plugin = plugin().await;
    let pid: u32 = message(plugin.run("pid", "{}").await, FailureKind::Error).parse().unwrap();
    let gone = gone(pid);
    drop(plugin);
    soon(gone).await;
}

/// The host here is this test's program, run for the test below it.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_a_host_that_is_killed() {
    let mut host = own_process("runners::crashes::be_killed").stdout(std::process::Stdio::piped()).spawn().unwrap();
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let mut children = Vec::new();
    while children.len() < 2 {
        let line = soon(lines.next_line()).await.unwrap().expect("the host tells its children before it ends");
        children.extend(line.split("child ").nth(1).and_then(|pid| pid.parse().ok()).map(gone));
    }
    host.kill().await.unwrap();
    for gone in children {
        soon(gone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above"]
async fn be_killed() {
    let (idle, spinning) = (plugin().await, plugin().await);
    for plugin in [&idle, &spinning] {
        println!("child {}", message(plugin.run("pid", "{}").await, FailureKind::Error));
    }
    spinning.generation.run(spinning.index("spin"), &job("{}"), &Cancel::default()).await;
}

fn process(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()
}

/// Returns when the process, which lives now, is gone.
fn gone(pid: u32) -> impl Future<Output = ()> {
    let fd = rustix::process::pidfd_open(process(pid), rustix::process::PidfdFlags::empty()).unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap()
    });
    async move { assert_eq!(waiting.await.unwrap(), 1, "process {pid} is still there after {DEADLINE:?}") }
}
