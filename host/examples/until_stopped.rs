//! A worker with a task of its own and, if it is given a folder, with the plugins in there, until it is told to stop:
//! `DATABASE_URL=… cargo run --example until_stopped [FOLDER]`

use std::process::ExitCode;

use taskbay::{JobContext, Options, TaskList};

fn main() -> ExitCode {
    // Each plugin runs in a process of its own, which is this program again.
    if let Some(ended) = taskbay::plugin_child() {
        return ended;
    }
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn work() -> Result<(), Box<dyn std::error::Error>> {
    let tasks = TaskList::new().task("hello", |name: String, _: JobContext| async move {
        println!("hello, {name}");
        Ok(())
    });
    let mut options = Options::new().tasks(tasks).handle_signals();
    if let Some(folder) = std::env::args_os().nth(1) {
        options = options.folder(folder);
    }
    let runner = taskbay::run(options).await?;
    println!("working");
    runner.wait().await?;
    println!("stopped");
    Ok(())
}
