//! Who is at work on a database that is about to change.

use tokio_postgres::GenericClient;

use crate::queue::quote_identifier;

/// The locks that are younger than four hours; older ones are of workers that are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locks {
    /// Whoever locked jobs, and how many.
    pub owners: Vec<(String, i64)>,
    /// At revision 1 a job that runs can be known by its queue alone.
    pub(super) of_queues: bool,
}

/// What is known of the workers on a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workers {
    pub locks: Locks,
    /// How many connections of other programs listen for jobs, in any schema of the database; workers that have nothing to
    /// do are known by this alone. Connections of roles that ours may not look at are missing.
    pub listeners: i64,
}

impl Locks {
    /// All locked jobs.
    pub fn jobs(&self) -> i64 {
        self.owners.iter().map(|(_, jobs)| jobs).sum()
    }

    /// Who locked how many, as a sentence without its full stop.
    pub fn sentence(&self) -> String {
        /// So many are enough to find them all.
        const NAMED: usize = 5;
        let mut owners: Vec<String> =
            self.owners.iter().take(NAMED).map(|(owner, jobs)| format!("{owner} ({jobs})")).collect();
        if self.owners.len() > NAMED {
            owners.push(format!("{} more", self.owners.len() - NAMED));
        }
        let jobs = self.jobs();
        let are = if jobs == 1 { "job is" } else { "jobs are" };
        format!("{jobs} {are} locked by {}", owners.join(", "))
    }
}

/// Reads the locks of a database at a revision. `table` holds the jobs, or at revision 1 the queues.
pub(super) async fn locks(
    client: &impl GenericClient,
    schema: &str,
    number: i32,
    table: &str,
) -> Result<Locks, tokio_postgres::Error> {
    let sql = format!(
        "select coalesce(locked_by, 'an unknown worker'), count(*) from {}.{table} \
         where locked_at > now() - interval '4 hours' group by 1 order by 2 desc, 1",
        quote_identifier(schema)
    );
    let rows = client.query(&sql, &[]).await?;
    let owners = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(Locks { owners, of_queues: number == 1 })
}

/// The table whose rows are locked while a job runs.
pub(super) fn locked_table(number: i32) -> &'static str {
    match number {
        1 => "job_queues",
        2..=15 => "jobs",
        _ => "_private_jobs",
    }
}

/// Every release of graphile-worker listens on a connection that it uses for nothing else, and so does this program, under
/// its own name.
pub(super) async fn listeners(client: &impl GenericClient) -> Result<i64, tokio_postgres::Error> {
    const SQL: &str = "
    select count(*) from pg_catalog.pg_stat_activity
    where datname = current_database()
      and pid <> pg_backend_pid()
      and application_name <> 'taskbay'
      and query ilike 'listen \"jobs:insert\"%'";
    Ok(client.query_one(SQL, &[]).await?.get(0))
}
