//! Whatever a program has for its log gets all lines, with their fields.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, MutexGuard},
};

use tokio::{runtime::Runtime, task::spawn_blocking};
use tracing::{
    Dispatch, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use super::*;

/// A line's fields, and below "span." those of the spans that it is in.
type Line = BTreeMap<String, String>;

/// A log of the program's own: a function that gets each line.
struct EachLine<F>(F);

struct Fields<'a>(&'a str, &'a mut Line);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.1.insert(format!("{}{}", self.0, field.name()), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl<S, F> Layer<S> for EachLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn(Line) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::new();
        attributes.record(&mut Fields("span.", &mut line));
        context.span(id).unwrap().extensions_mut().insert(line);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut line = Line::from([("target".to_owned(), event.metadata().target().to_owned())]);
        for span in context.event_scope(event).into_iter().flatten() {
            line.extend(span.extensions().get::<Line>().cloned().unwrap_or_default());
        }
        event.record(&mut Fields("", &mut line));
        (self.0)(line);
    }
}

// On one thread, so that the log of this test stays apart from that of others.
#[tokio::test]
async fn a_log_of_the_programs_own_gets_every_line_with_its_fields() {
    let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
    let sink = Arc::clone(&lines);
    // With a single log, a line that a thread without one reaches first would be off in all threads from then on.
    let _second_log = Dispatch::new(tracing_subscriber::registry());
    let log = tracing_subscriber::registry().with(EachLine(move |line| sink.lock().unwrap().push(line)));
    let _until_the_end = tracing::subscriber::set_default(log);

    let database = TestDatabase::installed().await;
    let tasks = TaskList::new().task("job3", |wish: String, _| async move {
        tracing::info!(wish, "said by the task");
        if wish == "fail" { Err("no luck")? } else { Ok(()) }
    });
    // As tests on other threads do: these have no log.
    let (first, same_tasks) = (TestDatabase::installed().await, tasks.clone());
    first.add("job3", json!("work")).await;
    first.add("job3", json!("fail")).await;
    let elsewhere = spawn_blocking(move || Runtime::new().expect("a runtime").block_on(once(&first, &same_tasks)));
    elsewhere.await.expect("the other host works");
    let done = database.add("job3", json!("work")).await;
    let failed = database.add("job3", json!("fail")).await;
    once(&database, &tasks).await;

    let lines: MutexGuard<'_, Vec<Line>> = lines.lock().unwrap();
    let find = |name: &str, value: &str, id: i64| {
        let of_job = |line: &&Line| [line.get("job"), line.get("span.job")].contains(&Some(&id.to_string()));
        let found = lines.iter().filter(|line| line.get(name).is_some_and(|it| it == value)).find(of_job);
        found.unwrap_or_else(|| panic!("no line with {name} = {value} of job {id} in {lines:?}"))
    };
    let worker = &find("event", "job_started", done)["worker"];
    assert!(worker.starts_with("taskbay-"), "{worker}");
    for (event, id) in [("job_started", done), ("job_done", done), ("job_completed", done), ("job_failed", failed)] {
        let line = find("event", event, id);
        assert_eq!((&line["task"], &line["worker"]), (&"job3".to_owned(), worker), "{line:?}");
        assert!(line["target"].starts_with("taskbay"), "{line:?}");
    }
    assert!(find("event", "job_failed", failed)["message"].contains("no luck"));
    let said = find("wish", "work", done);
    assert_eq!(
        (&said["span.task"], &said["span.worker"], &said["span.attempt"]),
        (&"job3".to_owned(), worker, &"1".to_owned())
    );
    assert!(lines.iter().any(|line| line.get("event").is_some_and(|event| event == "worker_ready")));
}
