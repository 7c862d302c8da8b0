//! The figures as text for a terminal, as the tables of the documentation, and as JSON with nothing left out.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    contender::{CONTENDERS, Contender},
    figure::{Kind, Results, Table, Unit},
    machine::Machine,
    sizes::Sizes,
};

/// What there is to tell.
#[derive(Debug)]
pub struct Report<'a> {
    pub machine: &'a Machine,
    pub sizes: Sizes,
    pub rounds: usize,
    pub results: &'a Results,
    /// What could not be measured, and why.
    pub failures: &'a [String],
}

impl Report<'_> {
    /// A block for each figure: median, least and most of the rounds, and the ratio.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            for kind in self.results.kinds(table) {
                let _ = writeln!(text, "\n{}: {}", self.filled(table.title()), self.filled(kind.title));
                for contender in CONTENDERS {
                    let Some(summary) = self.results.summary(contender.name, kind) else { continue };
                    let unit = kind.unit.name();
                    let _ = writeln!(
                        text,
                        "  {:<20}{:>12} {unit:<7}{:>27}{:>9}{}",
                        contender.name,
                        number(summary.median, kind.unit),
                        format!("{} – {}", number(summary.least, kind.unit), number(summary.most, kind.unit)),
                        self.ratio(contender, kind).map(|ratio| format!("{ratio}×")).unwrap_or_default(),
                        if summary.unfinished { "  not finished" } else { "" },
                    );
                }
            }
        }
        for failure in self.failures {
            let _ = writeln!(text, "\nNot measured: {failure}");
        }
        text
    }

    /// One table for each group of figures, with the contenders as lines.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.machine.about {
            let _ = writeln!(text, "* {name}: {value}");
        }
        let rounds =
            if self.rounds == 1 { "One round".to_owned() } else { format!("Medians of {} rounds", self.rounds) };
        let _ = writeln!(
            text,
            "\n{rounds}; in brackets the ratio to Taskbay with its defaults, unless a heading says otherwise."
        );
        for table in Table::ALL {
            let kinds = self.results.kinds(table);
            if kinds.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n### {}\n", self.filled(table.title()));
            let heads = kinds.iter().map(|kind| self.filled(kind.title)).map(|title| format!(" {title} |"));
            let _ = writeln!(text, "| |{}", heads.collect::<String>());
            let _ = writeln!(text, "|---|{}", "---:|".repeat(kinds.len()));
            for contender in CONTENDERS {
                let cells: Vec<String> = kinds.iter().map(|kind| self.cell(contender, kind)).collect();
                if cells.iter().any(|cell| cell != "–") {
                    let _ = writeln!(text, "| {} | {} |", contender.name, cells.join(" | "));
                }
            }
        }
        if self.results.all.iter().any(|one| one.figure.unfinished) {
            let _ = writeln!(text, "\n\\* Broken off before the end, so it would have been slower yet.");
        }
        text
    }

    pub fn json(&self) -> Value {
        let figures = self.results.all.iter().map(|one| {
            json!({
                "figure": one.figure.kind.id,
                "title": self.filled(one.figure.kind.title),
                "unit": one.figure.kind.unit.name(),
                "contender": one.contender,
                "round": one.round,
                "value": one.figure.value,
                "unfinished": one.figure.unfinished,
            })
        });
        let machine: serde_json::Map<String, Value> =
            self.machine.about.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({ "machine": machine, "figures": figures.collect::<Vec<Value>>(), "not_measured": self.failures })
    }

    fn cell(&self, contender: &Contender, kind: &Kind) -> String {
        let Some(summary) = self.results.summary(contender.name, kind) else { return "–".to_owned() };
        let star = if summary.unfinished { "\\*" } else { "" };
        let ratio = self.ratio(contender, kind).map(|ratio| format!(" ({ratio})")).unwrap_or_default();
        let unit = if kind.unit == Unit::Megabytes || kind.unit == Unit::Milliseconds && kind.table == Table::Programs {
            format!(" {}", kind.unit.name())
        } else {
            String::new()
        };
        format!("{}{unit}{star}{ratio}", number(summary.median, kind.unit))
    }

    /// To the first contender, or to the contender's own best number of hosts, if that has been measured and neither is nothing.
    fn ratio(&self, contender: &Contender, kind: &Kind) -> Option<String> {
        let median = |name, kind| self.results.summary(name, kind).map(|summary| summary.median);
        let own = median(contender.name, kind)?;
        let base = if kind.table == Table::Hosts {
            let all = self.results.kinds(Table::Hosts);
            all.into_iter().filter_map(|kind| median(contender.name, kind)).reduce(f64::max)?
        } else {
            median(CONTENDERS[0].name, kind)?
        };
        (base > 0.0 && own > 0.0).then(|| {
            let ratio = own / base;
            if ratio >= 10.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
        })
    }

    fn filled(&self, title: &str) -> String {
        let Sizes { drain, queued, stuck, hosts, latency, backlogs, .. } = self.sizes;
        let numbers = [
            ("{drain}", drain),
            ("{queued}", queued),
            ("{stuck}", stuck),
            ("{hosts}", hosts),
            ("{latency}", latency),
            ("{backlog 0}", backlogs[0]),
            ("{backlog 1}", backlogs[1]),
            ("{backlog 2}", backlogs[2]),
        ];
        numbers
            .iter()
            .fold(title.to_owned(), |title, (name, number)| title.replace(name, &thousands(f64::from(*number))))
    }
}

/// With as many digits as mean something.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond | Unit::Bytes => thousands(value),
        Unit::Megabytes => format!("{value:.1}"),
        Unit::Milliseconds | Unit::Microseconds => format!("{value:.2}"),
        Unit::EachJob => format!("{value:.4}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
