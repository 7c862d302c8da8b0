//! The view `jobs`, which administrators and other programs read.

use serde_json::Value;

use crate::harness::postgres::TestDatabase;

#[tokio::test]
async fn the_view_shows_each_job_as_its_row_with_the_names_of_task_and_queue() {
    let database = TestDatabase::installed().await;
    database
        .execute(
            "select graphile_worker.add_job('plain');
             select graphile_worker.add_job('full', '[1]', 'q', now() + interval '1 hour', 3, 'k', -7, array['f']);
             update graphile_worker._private_jobs
             set attempts = 1, last_error = 'no luck', locked_at = now(), locked_by = 'x', revision = 4
             where key = 'k'",
        )
        .await;
    let client = database.client().await;
    let read = async |sql: &str| -> Vec<Value> {
        client.query(sql, &[]).await.expect(sql).iter().map(|row| row.get(0)).collect()
    };
    let shown = read("select to_jsonb(job) from graphile_worker.jobs as job order by id").await;
    let expected = read(
        "select to_jsonb(job) - 'payload' - 'is_available' - 'task_id' - 'job_queue_id'
           || jsonb_build_object(
             'task_identifier', (select identifier from graphile_worker._private_tasks where id = task_id),
             'queue_name', (select queue_name from graphile_worker._private_job_queues where id = job_queue_id)
           )
         from graphile_worker._private_jobs as job
         order by id",
    )
    .await;
    assert_eq!(shown, expected);
    assert_eq!(shown.len(), 2);
    assert_eq!((&shown[0]["queue_name"], &shown[1]["queue_name"]), (&Value::Null, &Value::from("q")));
}
