//! Builds that never come to serve, and what is said about them.

use super::*;

async fn refusal(image: Arc<Image>, isolation: Isolation) -> String {
    refusal_within(DEADLINE, image, isolation).await
}

async fn refusal_within(start_timeout: Duration, image: Arc<Image>, isolation: Isolation) -> String {
    let settings = PluginSettings { start_timeout, ..settings(isolation) };
    soon(Generation::launch(image, &settings, &services().0)).await.unwrap_err().to_string()
}

/// A constructor that goes wrong must not take the host along, so that both runners refuse it the same way.
#[tokio::test(flavor = "multi_thread")]
async fn constructors_that_go_wrong_are_told_by_their_end() {
    for isolation in [Isolation::Child, Isolation::InProcess] {
        for (constructor, expected) in
            [("segv", "its constructor crashed (signal 11 (SIGSEGV"), ("exit", "it called exit(3) while loading")]
        {
            let text = refusal(image_with(constructor, "succeed"), isolation).await;
            assert!(text.starts_with(expected), "{constructor}: {text}");
        }
        let text = refusal_within(Duration::from_millis(1500), image_with("hang", "succeed"), isolation).await;
        assert!(text.starts_with("it did not finish loading within 1s 500ms"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_that_crashes_is_told_by_its_end() {
    let text = refusal(image_with("nothing", "segv"), Isolation::Child).await;
    assert!(text.starts_with("it crashed during its start-up: its process was killed by signal 11"), "{text}");
}

/// Overwrites bytes of the header, which is found by its mark and the plugin's size of it.
fn with_header(change: impl Fn(&mut [u8])) -> Arc<Image> {
    let mut bytes = raw_plugin().to_vec();
    let at = bytes.windows(8).position(|window| window == taskbay_abi::MAGIC).expect("a header");
    change(&mut bytes[at..]);
    seal(&bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_interface_version_is_named_with_ours() {
    let other = with_header(|header| header[12..16].copy_from_slice(&2_u32.to_le_bytes()));
    assert_eq!(
        refusal(other, Isolation::Child).await,
        "was built for taskbay plugin interface 2, this host speaks 1: rebuild it with a matching taskbay-plugin"
    );
    let newer = with_header(|header| header[16..20].copy_from_slice(&7_u32.to_le_bytes()));
    assert!(
        refusal(newer, Isolation::Child).await.starts_with("was built for taskbay plugin interface 1.7, this host")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_panics_abort_runs_only_isolated() {
    let flagged = || with_header(|header| header[24..32].copy_from_slice(&taskbay_abi::FLAG_PANIC_ABORT.to_le_bytes()));
    assert!(refusal(flagged(), Isolation::InProcess).await.starts_with("was built with panic = \"abort\""));
    let plugin = Plugin::launch_with(flagged(), &settings(Isolation::Child)).await;
    assert_eq!(plugin.run("ok", "{}").await, Outcome::Done);
    plugin.generation.retire().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_the_manifest_without_the_start_up() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_taskbay"));
    let manifest = soon(probe(&image_with("nothing", "segv"), &PluginSettings::default(), &program)).await.unwrap();
    assert_eq!((manifest.name.as_str(), manifest.abi), ("raw", (1, 0)));
    assert_eq!(manifest.tasks[0].name, "ok");
    assert_eq!(manifest.tasks[9].timeout, Some(Duration::from_millis(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_taskbay_is_told() {
    for (program, expected) in
        [("/nonexistent/taskbay", "No such file"), ("/bin/true", "it ended by itself with exit status 0")]
    {
        let error = soon(probe(&image(), &PluginSettings::default(), program.as_ref())).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_there_is_a_last_build_and_it_serves_on() {
    in_own_process("runners::start::fill_this_process", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, since it uses up what a process has for builds"]
async fn fill_this_process() {
    let settings = settings(Isolation::InProcess);
    let (services, _) = services();
    let mut serving: Option<Arc<Generation>> = None;
    for count in 0.. {
        match Generation::launch(image(), &settings, &services).await {
            Ok(next) => {
                if let Some(old) = serving.replace(next) {
                    old.retire().await;
                }
            }
            Err(error) => {
                assert_eq!(error, LaunchError::TooManyBuilds { mapped: count });
                assert!(error.to_string().contains("restart the host, or run this plugin isolated"));
                break;
            }
        }
    }
    let outcome = serving.unwrap().run(0, &job("{}"), &Cancel::default()).await;
    assert_eq!(outcome, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_would_take_the_last_thread_keys_is_refused() {
    in_own_process("runners::start::use_up_thread_keys", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, since it uses up what a process has of thread-local keys"]
async fn use_up_thread_keys() {
    let serving = Plugin::launch(Isolation::InProcess).await;
    let mut keys = Vec::new();
    let mut key = 0;
    // SAFETY: keys without destructors, made and deleted in this test.
    while unsafe { libc::pthread_key_create(&raw mut key, None) } == 0 {
        keys.push(key);
    }
    for key in keys.drain(..40) {
        // SAFETY: as above.
        unsafe { libc::pthread_key_delete(key) };
    }
    let error = Generation::launch(image(), &settings(Isolation::InProcess), &services().0).await.unwrap_err();
    assert!(error.to_string().starts_with("this process has only 40 thread-local keys left"), "{error}");
    assert_eq!(serving.run("ok", "{}").await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_does_not_see_how_to_reach_the_database() {
    let variables = [("DATABASE_URL", "x"), ("TASKBAY_DATABASE_URL", "y"), ("PGPASSWORD", "z"), ("OTHER", "seen")];
    in_own_process("runners::start::look_at_the_environment", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, with the variables"]
async fn look_at_the_environment() {
    let plugin = Plugin::launch(Isolation::Child).await;
    for (name, expected) in
        [("DATABASE_URL", "not set"), ("TASKBAY_DATABASE_URL", "not set"), ("PGPASSWORD", "not set"), ("OTHER", "seen")]
    {
        assert_eq!(plugin.run("environment", name).await, failed(FailureKind::Error, expected));
    }
    plugin.generation.retire().await;
}

/// Runs a test that may not share its process with others.
async fn in_own_process(test: &str, variables: &[(&str, &str)]) {
    let output = own_process(test).envs(variables.iter().copied()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
