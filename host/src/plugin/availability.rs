//! Whether a generation takes jobs.

/// The availability of a generation for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It takes jobs.
    Serving,
    /// Its process crashed and is being restarted.
    Restarting,
    /// Its process crashed too often: it takes no jobs until another build replaces it.
    Quarantined { reason: String },
    /// It was retired.
    Stopped,
}
