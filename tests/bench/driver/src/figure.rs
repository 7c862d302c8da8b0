//! What is measured: kinds of figures, and the single figures of a comparison.

/// A column of a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Unique, for JSON.
    pub id: &'static str,
    /// The table that it is in.
    pub table: Table,
    /// The head of its column. `{drain}` and the like are replaced by numbers of jobs.
    pub title: &'static str,
    pub unit: Unit,
}

/// The tables, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Drains,
    Hosts,
    IdleLatency,
    BusyLatency,
    Programs,
    Postgres,
    Backlog,
}

impl Table {
    pub const ALL: [Self; 7] = [
        Self::Drains,
        Self::Hosts,
        Self::IdleLatency,
        Self::BusyLatency,
        Self::Programs,
        Self::Postgres,
        Self::Backlog,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Drains => "Jobs per second",
            Self::Hosts => "Jobs per second by number of hosts, {hosts} no-op jobs (ratio to the contender's best)",
            Self::IdleLatency => "Latency of {latency} jobs, one at a time, in milliseconds",
            Self::BusyLatency => "Latency of {latency} jobs at 500 a second, in milliseconds",
            Self::Programs => "Start, stop, memory, adding",
            Self::Postgres => "What a no-op job costs Postgres",
            Self::Backlog => "Microseconds per job, by the backlog",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Megabytes,
    Bytes,
    /// A number per job.
    EachJob,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "jobs/s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Megabytes => "MB",
            Self::Bytes => "bytes",
            Self::EachJob => "",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub kind: &'static Kind,
    pub value: f64,
    /// Whether the run was broken off, so that it would have been worse if it had gone on.
    pub unfinished: bool,
}

impl Figure {
    pub fn new(kind: &'static Kind, value: f64) -> Self {
        Self { kind, value, unfinished: false }
    }
}

/// All single figures.
#[derive(Debug, Default)]
pub struct Results {
    pub all: Vec<Measured>,
}

/// A figure and whose it is.
#[derive(Debug)]
pub struct Measured {
    pub contender: &'static str,
    pub round: usize,
    pub figure: Figure,
}

/// All rounds of one figure of one contender.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub unfinished: bool,
}

impl Results {
    /// The kinds of which there are figures, in the order in which they were first measured.
    pub fn kinds(&self, table: Table) -> Vec<&'static Kind> {
        let mut kinds: Vec<&'static Kind> = Vec::new();
        for measured in self.all.iter().filter(|measured| measured.figure.kind.table == table) {
            if !kinds.contains(&measured.figure.kind) {
                kinds.push(measured.figure.kind);
            }
        }
        kinds
    }

    pub fn summary(&self, contender: &str, kind: &Kind) -> Option<Summary> {
        let own = || self.all.iter().filter(|one| one.contender == contender && one.figure.kind == kind);
        let values: Vec<f64> = own().map(|one| one.figure.value).collect();
        let (least, most) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some(Summary { median: quantile(values, 0.5), least, most, unfinished: own().any(|one| one.figure.unfinished) })
    }
}

/// The value below which this part of the values is. There must be one.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = part * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
