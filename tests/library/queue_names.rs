//! What a job knows of its queue: graphile-worker's `runner.helpers.getTaskName` test.

use std::collections::BTreeMap;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_job_knows_the_name_of_its_queue_at_once() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let tasks = gate.task("job3");
    for round in 0..3 {
        let queue = |number: u32| (!number.is_multiple_of(8)).then(|| format!("queue_{}", number % 8));
        let jobs: Vec<NewJob> = (0..10)
            .map(|number| {
                let job = payload(json!([round, number]));
                queue(number).map_or(job.clone(), |queue| job.queue(queue))
            })
            .collect();
        database.database().add_jobs(&jobs).await.unwrap();
        once(&database, &tasks).await;
        let names: BTreeMap<String, Option<String>> =
            gate.all_started().into_iter().map(|job| (job.payload, job.queue_name)).collect();
        let expected = (0..10).map(|number| (json!([round, number]).to_string(), queue(number)));
        assert_eq!(names, expected.collect());
    }
}
