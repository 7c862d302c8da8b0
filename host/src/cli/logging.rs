//! The log: lines for people, or JSON for machines; to standard error, which leaves standard output to results.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io::{IsTerminal, Stderr, stderr},
};

use jiff::{Timestamp, Zoned};
use serde_json::Value;
use thiserror::Error;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{log_output::LogOutput, output::errors_have_room};
use crate::{
    config::{LogFormat, LogSettings},
    escape,
};

/// A log level or directive that cannot be understood.
#[derive(Debug, Error)]
#[error(
    "the log level {filter:?} cannot be used: {reason}; write error, warn, info, debug or trace, or directives as in RUST_LOG=info,taskbay=debug"
)]
pub struct WrongFilter {
    filter: String,
    reason: String,
}

/// Starts logging. `usual` is how much is logged unless the settings say otherwise. What is returned is to be finished when the program ends.
pub(super) fn start(settings: &LogSettings, usual: &str) -> Result<LogOutput<Stderr>, WrongFilter> {
    let mut filter = filter(settings.filter.as_deref().unwrap_or(usual))?;
    if !settings.success {
        let directive = format!("{SUCCESS}=off")
            .parse()
            .map_err(|error: ParseError| WrongFilter { filter: SUCCESS.to_owned(), reason: error.to_string() })?;
        filter = filter.add_directive(directive);
    }
    let output = LogOutput::new(stderr(), errors_have_room, settings.format);
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(output.clone()).log_internal_errors(false);
    // Logging can be started once per process; a program that uses this as a library may have its own already.
    let _ = match settings.format {
        LogFormat::Text => {
            let terminal = stderr().is_terminal();
            let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(colour).event_format(Line { short_time: terminal }).try_init()
        }
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false)
            .try_init(),
    };
    Ok(output)
}

/// The target of the line about a job that is done, which can be had less of.
const SUCCESS: &str = "taskbay::events::done";

/// A lost connection is said once, by those who need it.
const DATABASE_LIBRARIES: &str = "deadpool_postgres=off,tokio_postgres=off";

/// A bare level is for what this program and its plugins say; libraries are heard when they warn.
fn filter(text: &str) -> Result<EnvFilter, WrongFilter> {
    let wrong = |reason: String| WrongFilter { filter: text.to_owned(), reason };
    let level =
        ["off", "error", "warn", "info", "debug", "trace"].into_iter().find(|level| text.eq_ignore_ascii_case(level));
    match level {
        Some(level @ ("off" | "error")) => Ok(EnvFilter::new(level)),
        Some(level) => Ok(EnvFilter::new(format!("warn,{DATABASE_LIBRARIES},taskbay={level},plugin={level}"))),
        // A single word would be taken for a library's name, and silence everything else.
        None if !text.contains(['=', ',', ':', '[']) => Err(wrong("there is no such level".to_owned())),
        None => EnvFilter::try_new(text).map_err(|error| wrong(error.to_string())),
    }
}

/// `12:34:56.789 INFO  job done  job=5 task=send_email`
struct Line {
    /// Only the local time of day, for one who looks at it as it happens.
    short_time: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let style = Style { colour: writer.has_ansi_escapes() };
        let time = if self.short_time {
            Zoned::now().strftime("%H:%M:%S%.3f").to_string()
        } else {
            format!("{:.3}", Timestamp::now())
        };
        let mut parts = Parts { style, ..Parts::default() };
        event.record(&mut parts);
        let level = *event.metadata().level();
        writeln!(
            writer,
            "{} {} {}{}",
            style.paint("2", &time),
            style.paint(colour_of(level), &format!("{level:<5}")),
            parts.message,
            parts.fields
        )
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Style {
    colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// An event's message and its other fields.
#[derive(Default)]
struct Parts {
    style: Style,
    message: String,
    fields: String,
}

impl Parts {
    fn add(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(&escape::line(value)),
            // For machines; the message says the same.
            "event" => {}
            // What a plugin's line has beside its message comes as one JSON object.
            "fields" => match serde_json::from_str::<serde_json::Map<String, Value>>(value) {
                Ok(fields) => fields.iter().for_each(|(name, value)| match value {
                    Value::String(text) => self.add_field(name, text),
                    other => self.add_field(name, &other.to_string()),
                }),
                Err(_) => self.add_field("fields", value),
            },
            name => self.add_field(name, value),
        }
    }

    fn add_field(&mut self, name: &str, value: &str) {
        let value = escape::line(value);
        let quoted = value.is_empty() || value.contains([' ', '=', '"']);
        let value = if quoted { Cow::Owned(format!("{value:?}")) } else { value };
        let _ = write!(self.fields, " {}{value}", self.style.paint("2", &format!("{}=", escape::line(name))));
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(colour: bool, log: impl FnOnce()) -> String {
        let written = Written::default();
        let sink = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(colour)
            .event_format(Line { short_time: false })
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_the_message_and_the_fields_but_not_the_name_for_machines() {
        let line = logged(false, || tracing::info!(event = "job_done", job = 5, task = "send email", "job done"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(rest, "INFO  job done job=5 task=\"send email\"\n");
    }

    #[test]
    fn what_a_plugin_adds_to_its_line_stands_beside_the_other_fields() {
        let line = logged(false, || tracing::info!(job = 5, fields = r#"{"to":"ada","n":3}"#, "sent"));
        assert!(line.contains("sent job=5") && line.contains(" to=ada") && line.contains(" n=3"), "{line}");
    }

    #[test]
    fn what_a_plugin_prints_cannot_steer_the_terminal() {
        let line = logged(true, || tracing::warn!("{}", "red: \x1b[31m\nnext"));
        assert!(line.contains("red: \\u{1b}[31m\\nnext"), "{line:?}");
    }

    #[test]
    fn a_level_that_does_not_exist_is_refused() {
        assert!(filter("debug").is_ok() && filter("info,taskbay::events=debug").is_ok());
        assert!(filter("verbose").unwrap_err().to_string().contains("\"verbose\""));
        assert!(filter("taskbay=loud").is_err());
    }
}
