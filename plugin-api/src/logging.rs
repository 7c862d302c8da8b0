//! Sends the plugin's log lines to the host, with their fields and their job.
//!
//! A plugin has its own copies of `tracing` and `log`; the host's subscriber does not receive their events.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};
use taskbay_abi::{INIT_CALL, LEVEL_DEBUG, LEVEL_ERROR, LEVEL_INFO, LEVEL_TRACE, LEVEL_WARN};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::{
    current,
    host_link::{self, HostLink, Line},
};

/// Starts forwarding. A subscriber or logger that the process already has, as in a test, stays in place.
pub(crate) fn install(link: &Arc<dyn HostLink>) {
    let most = link.max_level();
    let _ = tracing::subscriber::set_global_default(Registry::default().with(Forward { most }));
    if log::set_logger(&ForwardRecords).is_ok() {
        log::set_max_level(record_filter(most));
    }
}

/// Writes a line for this thread's current call.
pub(crate) fn emit(level: u32, target: &str, message: &str, fields: Map<String, Value>) {
    let fields = (!fields.is_empty()).then(|| Value::Object(fields).to_string());
    let line = Line { level, target, message, fields: fields.as_deref() };
    current::with(|current| match (current, host_link::remembered()) {
        (Some(current), _) => current.link.log(current.call, &line),
        (None, Some(link)) => link.log(INIT_CALL, &line),
        (None, None) => {}
    });
}

struct Forward {
    most: u32,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Forward {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        number(*metadata.level()) <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(event_filter(self.most))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        // From the outermost span inwards: inner values replace outer ones of the same name.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.map.extend(outer.map.clone());
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        emit(number(*metadata.level()), metadata.target(), &fields.message, fields.map);
    }
}

/// Fields of an event or a span as JSON, with the message kept apart.
#[derive(Default)]
struct Fields {
    message: String,
    map: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.map.insert(field.name().to_owned(), value);
    }

    fn put_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, Value::String(text));
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither NaN nor infinity.
        let number = serde_json::Number::from_f64(value).map(Value::Number);
        self.put(field, number.unwrap_or_else(|| Value::String(value.to_string())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }
}

/// Forwards lines of the `log` crate, which many libraries use instead of `tracing`.
struct ForwardRecords;

impl log::Log for ForwardRecords {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Error => LEVEL_ERROR,
                log::Level::Warn => LEVEL_WARN,
                log::Level::Info => LEVEL_INFO,
                log::Level::Debug => LEVEL_DEBUG,
                log::Level::Trace => LEVEL_TRACE,
            };
            emit(level, record.target(), &record.args().to_string(), Map::new());
        }
    }

    fn flush(&self) {}
}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => LEVEL_ERROR,
        Level::WARN => LEVEL_WARN,
        Level::INFO => LEVEL_INFO,
        Level::DEBUG => LEVEL_DEBUG,
        Level::TRACE => LEVEL_TRACE,
    }
}

fn event_filter(most: u32) -> LevelFilter {
    match most {
        0 => LevelFilter::OFF,
        LEVEL_ERROR => LevelFilter::ERROR,
        LEVEL_WARN => LevelFilter::WARN,
        LEVEL_INFO => LevelFilter::INFO,
        LEVEL_DEBUG => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn record_filter(most: u32) -> log::LevelFilter {
    match most {
        0 => log::LevelFilter::Off,
        LEVEL_ERROR => log::LevelFilter::Error,
        LEVEL_WARN => log::LevelFilter::Warn,
        LEVEL_INFO => log::LevelFilter::Info,
        LEVEL_DEBUG => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}
