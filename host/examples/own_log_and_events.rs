//! A program that hears of everything: the log lines by a subscriber of its own, and the events as values.
//! `DATABASE_URL=… cargo run --example own_log_and_events`

use std::fmt::Debug;

use taskbay::{JobContext, Options, TaskList, events::Event, queue::NewJob};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// Hands each line to a function, as graphile-worker's log factory does.
struct Log<F>(F);

impl<S: Subscriber, F: Fn(&str, &str) + 'static> Layer<S> for Log<F> {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        (self.0)(event.metadata().level().as_str(), &message.0);
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Log(|level: &str, message: &str| println!("log: {level} {message}"));
    tracing_subscriber::registry().with(log.with_filter(LevelFilter::INFO)).init();

    let tasks = TaskList::new().task("hello", |_: serde_json::Value, _: JobContext| async { Ok(()) });
    let runner = taskbay::run(Options::new().tasks(tasks).handle_signals()).await?;
    let mut events = runner.events().subscribe();
    runner.add_job(&NewJob::new("hello")).await?;
    loop {
        let event = events.recv().await?;
        match &event {
            Event::JobStarted { job, .. } => println!("{} of {}", event.name(), job.task),
            Event::JobCompleted { job, .. } => {
                println!("{} of {}", event.name(), job.task);
                break;
            }
            _ => println!("{}", event.name()),
        }
    }
    runner.stop().await?;
    Ok(())
}
