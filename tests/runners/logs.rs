//! The log lines of plugins, as the host writes them.

use std::fmt::Debug;

use tokio::sync::oneshot;
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry};

use super::{HashMap, Mutex, OnceLock};

/// One line with the target `plugin`.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) level: String,
    pub(super) job: Option<i64>,
    pub(super) message: String,
    pub(super) fields: HashMap<String, String>,
}

type Waiter = (Box<dyn Fn(&Line) -> bool + Send>, oneshot::Sender<Line>);
static WAITERS: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());

/// The first line from here on that `matches`.
pub(super) fn wait_for(matches: impl Fn(&Line) -> bool + Send + 'static) -> impl Future<Output = Line> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let levels = tracing_subscriber::filter::LevelFilter::INFO;
        tracing::subscriber::set_global_default(registry().with(Lines.with_filter(levels))).unwrap();
    });
    let (sender, line) = oneshot::channel();
    WAITERS.lock().unwrap().push((Box::new(matches), sender));
    async move { line.await.unwrap() }
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "plugin" {
            return;
        }
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        let mut waiters = WAITERS.lock().unwrap();
        let (found, rest) = std::mem::take(&mut *waiters).into_iter().partition(|(matches, _)| matches(&line));
        *waiters = rest;
        for (_, sender) in found {
            let _ = sender.send(line.clone());
        }
    }
}

impl Visit for Line {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "job" {
            self.job = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}").trim_matches('"').replace("\\\"", "\"");
        match field.name() {
            "message" => self.message = value,
            name => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}
