//! What a file is given: as graphile-worker does, to the letter.

use std::fs;

use serde_json::json;

use super::{Workplace, of_job};
use crate::harness::{node, plugins::install, processes::children_of, program::Taskbay};

const RECORD: &str = r#"{ env | grep -E '^(GRAPHILE_WORKER_(JOB|TASK|PAYLOAD)|OWN_)' | sort; echo "$0 $# $PWD"; cat; } > "$NOTES/$RECORD""#;

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_from_us_what_it_gets_from_node() {
    let place = Workplace::new().await;
    fs::create_dir(place.tasks.path().join("mail")).expect("make a folder");
    place.script("mail/record.test.sh", RECORD);
    let url = place.database.url();
    for with_key in [true, false] {
        let key = if with_key { "'a key'" } else { "null" };
        let add = format!(
            r#"select (graphile_worker.add_job('mail/record', '{{"to":["Ä",1.5,null],"n":{{}}}}', run_at := '2020-01-02 03:04:05.6789Z',
                 max_attempts := 7, priority := -3, job_key := {key})).id"#
        );
        let theirs = place.database.id_of(&add, &[]).await;
        let output = node::script("executables.cjs", &url, "graphile_worker")
            .arg(place.tasks.path())
            .envs([
                ("NOTES", place.notes.path().as_os_str()),
                ("RECORD", "node".as_ref()),
                ("OWN_VARIABLE", "1".as_ref()),
            ])
            .current_dir(place.notes.path())
            .output()
            .await
            .expect("run Node");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        place.database.wait_until_no_jobs().await;

        let ours = place.database.id_of(&add, &[]).await;
        let host = place.run().env("RECORD", "ours").env("OWN_VARIABLE", "1").current_dir(place.notes.path());
        assert!(host.arg("--once").spawn().ended().await.success());
        place.database.wait_until_no_jobs().await;

        let id = |id: i64| format!("GRAPHILE_WORKER_JOB_ID={id}\n");
        let (node, here) = (place.read("node"), place.read("ours"));
        assert!(node.contains(&id(theirs)) && node.contains("OWN_VARIABLE=1"), "{node}");
        assert_eq!(node.contains("GRAPHILE_WORKER_JOB_KEY"), with_key);
        assert_eq!(here.replace(&id(ours), &id(theirs)), node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_arrives_byte_for_byte_and_then_the_input_ends() {
    let place = Workplace::new().await;
    place.script("keep", r#"cat > "$NOTES/input""#);
    let stored = "{ \"b\" : 1.0e2 ,\n\"a\":\"\\u00e9\\u0000é\", \"b\":2}";
    let sql = format!("select (graphile_worker.add_job('keep', '{stored}'::json)).id");
    place.database.id_of(&sql, &[]).await;
    place.once().await;
    assert_eq!(place.read("input"), format!("{{\"payload\":{stored}}}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_scripts_of_any_language_run() {
    let place = Workplace::new().await;
    let program = fs::read("/usr/bin/env").expect("read a program");
    install(place.tasks.path(), "compiled", &program);
    let python = b"#!/usr/bin/env python3\nimport sys, json\nprint(json.load(sys.stdin)['payload']['n'] + 1)\n";
    install(place.tasks.path(), "python.py", python);
    std::os::unix::fs::symlink("python.py", place.tasks.path().join("link")).expect("make a link");
    for task in ["compiled", "python", "link"] {
        place.database.add(task, json!({"n": 41})).await;
    }
    let host = place.once().await;
    place.database.wait_until_no_jobs().await;
    let said: Vec<String> = host
        .events("job_output")
        .iter()
        .map(|line| format!("{}: {}", line["task"].as_str().unwrap_or(""), line["message"].as_str().unwrap_or("")))
        .collect();
    for line in ["compiled: GRAPHILE_WORKER_TASK_IDENTIFIER=compiled", "python: 42", "link: 42"] {
        assert!(said.iter().any(|one| one == line), "{line:?} is not in {said:?}");
    }
}

/// The C library would have a shell run it, whatever language it is in.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_without_a_first_line_for_its_interpreter_is_refused() {
    let place = Workplace::new().await;
    install(place.tasks.path(), "bare", b"echo bare\n");
    let check = Taskbay::command("check").arg(place.tasks.path().join("bare")).output();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.code() == Some(1) && said.contains("begin it with one, such as #!/bin/sh"), "{said}");
    let id = place.database.add("bare", json!({})).await;
    let output = place.run().arg("--once").output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1), "{said}");
    let last = said.lines().last().expect("why it does not start");
    assert!(last.contains("bare: is neither a compiled program nor a script") && last.contains("--watch"), "{last}");
    assert_eq!(place.database.job(id).await.attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_no_descriptors_of_others_and_leaves_no_zombie() {
    let place = Workplace::new().await;
    place.script("long", r#"echo $$ > "$NOTES/long"; exec sleep 600"#);
    place.script("look", "exec ls /proc/self/fd");
    let host = place.ready(place.run()).await;
    let long = place.database.add("long", json!({})).await;
    host.event("job_started", of_job(long)).await;
    let pid = place.noted_id("long").await;
    for _ in 0..3 {
        let look = place.database.add("look", json!({})).await;
        host.event("job_done", of_job(look)).await;
        let seen: Vec<String> = host
            .events("job_output")
            .iter()
            .filter(|line| line["job"] == look)
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect();
        // The usual three, and that which `ls` reads by; whatever whoever started the host may have left open.
        assert_eq!(seen, ["0", "1", "2", "3"]);
    }
    assert_eq!(children_of(host.id()).iter().map(|child| child.0).collect::<Vec<_>>(), [pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_found_by_the_tasks_name_and_check_knows_executables() {
    let place = Workplace::new().await;
    fs::create_dir(place.tasks.path().join("mail")).expect("make a folder");
    place.script("mail/slow.sh", "exec sleep 600");
    let id = place.database.add("mail/slow", json!({})).await;
    let mut host = place.run().settings("[plugins.\"mail/slow\"]\ntimeout = \"200ms\"").arg("--once").spawn();
    assert!(host.ended().await.success());
    let error = place.database.job(id).await.last_error.expect("it failed");
    assert!(
        error.starts_with("did not finish within 200ms; told to end, it was killed by signal 15 (SIGTERM)"),
        "{error}"
    );

    let check = |file: &str| {
        let output = Taskbay::command("check").arg(place.tasks.path().join(file)).output();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, said) = check("mail/slow.sh");
    assert!(status == Some(0) && said.contains("ok: executable"), "{said}");
    place.script("broken", "");
    fs::write(place.tasks.path().join("broken"), "#!/no/such/thing\n").expect("write a script");
    let (status, said) = check("broken");
    assert!(status == Some(1) && said.contains("needs the interpreter /no/such/thing, which does not exist"), "{said}");
}
