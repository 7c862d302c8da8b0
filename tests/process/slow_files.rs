//! Files that take long to read.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
};

use taskbay::{Options, TaskList, events::Event};

use crate::harness::{plugins::tasks_folder, postgres::TestDatabase, program::DEADLINE};

/// One job after the other runs, on the only thread that there is, while the host reads one file after the other.
#[tokio::test]
async fn jobs_go_on_while_plugin_files_are_read() {
    const FILES: usize = 3;
    let (database, tasks) = (TestDatabase::installed().await, tasks_folder());
    let list = TaskList::new().task("tick", |_: serde_json::Value, _| async { Ok(()) });
    let options = Options::new()
        .config(database.config())
        .tasks(list)
        .folder(tasks.path())
        .program(env!("CARGO_BIN_EXE_taskbay"));
    let runner = taskbay::run(options).await.expect("the host starts");
    let mut events = runner.events().subscribe();

    // They come all at once, by one rename.
    let outside = tempfile::tempdir_in(tasks.path().parent().expect("a parent")).expect("a folder");
    let large = outside.path().join("large");
    fs::create_dir(&large).expect("create a folder");
    fs::set_permissions(&large, Permissions::from_mode(0o755)).expect("let nobody else write");
    for number in 0..FILES {
        let file = File::create(large.join(format!("lib{number}.so"))).expect("create a file");
        file.set_len(1 << 30).expect("make it large");
        file.set_permissions(Permissions::from_mode(0o644)).expect("let nobody else write");
    }
    runner.add_job(&taskbay::queue::NewJob::new("tick")).await.expect("add a job");
    fs::rename(&large, tasks.path().join("large")).expect("rename a folder");

    let (mut refused, mut done_meanwhile) = (0, 0);
    let watching = async {
        while refused < FILES {
            match events.recv().await.expect("the test keeps up") {
                Event::FileRejected { .. } => refused += 1,
                Event::JobCompleted { .. } => {
                    done_meanwhile += usize::from(refused > 0);
                    runner.add_job(&taskbay::queue::NewJob::new("tick")).await.expect("add a job");
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, watching).await.expect("all files are refused");
    assert!(done_meanwhile > 0, "no job was done between the first and the last file");
    runner.stop().await.expect("it stops");
}
