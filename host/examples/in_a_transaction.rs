//! Adds a job in the same transaction as the rows that it is about: either both are there, or neither.
//! `DATABASE_URL=… cargo run --example in_a_transaction`

use taskbay::{
    JobContext, Options, TaskList,
    queue::{self, NewJob},
};
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut client, connection) = tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("create table if not exists accounts (name text)").await?;

    let tasks = TaskList::new().task("welcome", |name: String, job: JobContext| async move {
        let rows = job.query("select from accounts where name = $1", &[&name]).await?;
        println!("welcome, {name}: {} account", rows.len());
        Ok(())
    });
    // Installs the schema where there is none.
    taskbay::run_task_list_once(Options::new(), tasks.clone()).await?;

    for (name, commit) in [("ada", true), ("bob", false)] {
        let transaction = client.transaction().await?;
        transaction.execute("insert into accounts values ($1)", &[&name]).await?;
        queue::add_job(&transaction, "graphile_worker", &NewJob::with_payload("welcome", name)?).await?;
        if commit {
            transaction.commit().await?;
        }
    }
    // Bob was rolled back, and nobody welcomes him.
    taskbay::run_task_list_once(Options::new(), tasks).await?;
    Ok(())
}
