//! A program with tasks of its own, which works the jobs that there are: `DATABASE_URL=… cargo run --example own_tasks`.

use serde::{Deserialize, Serialize};
use taskbay::{JobContext, Options, TaskError, TaskList, TaskResult, queue::NewJob};

#[derive(Serialize, Deserialize)]
struct SendEmail {
    to: String,
}

async fn send_email(mail: SendEmail, job: JobContext) -> TaskResult {
    if !mail.to.contains('@') {
        // Another attempt would fail the same way.
        return Err(TaskError::discard(format!("{} is no address", mail.to)));
    }
    println!("sending to {}, attempt {}", mail.to, job.attempt());
    job.add_job(&NewJob::with_payload("count_email", &mail)?.queue("counting")).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tasks = TaskList::new().task("send_email", send_email).task("count_email", |_: SendEmail, _| async {
        // … counts.
        Ok(())
    });
    // run_task_list goes on until it is stopped; this works what can be worked now.
    let options = Options::new().concurrency(4);
    taskbay::run_task_list_once(options.clone(), tasks.clone()).await?;

    let pool = taskbay::run_task_list(options, tasks).await?;
    let mut events = pool.events().subscribe();
    for to in ["ada@example.com", "no-address"] {
        pool.add_job(&NewJob::with_payload("send_email", &SendEmail { to: to.to_owned() })?).await?;
    }
    let mut ended = 0;
    while ended < 3 {
        match events.recv().await? {
            taskbay::events::Event::JobFailed { message, .. } => {
                println!("{message}");
                ended += 1;
            }
            taskbay::events::Event::JobDone { .. } => ended += 1,
            _ => {}
        }
    }
    pool.graceful_shutdown();
    pool.wait().await?;
    println!("worked all jobs");
    Ok(())
}
