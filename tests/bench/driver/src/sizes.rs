//! How many jobs each row has. All follow from one number, so that a small comparison is small everywhere.

/// Numbers of jobs, and of repetitions inside a round.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of a drain.
    pub drain: u32,
    /// In named queues, all together.
    pub queued: u32,
    /// In queues that are locked for good.
    pub stuck: u32,
    /// Of a drain by several hosts.
    pub hosts: u32,
    /// One at a time.
    pub latency: u32,
    /// Backlogs whose cost per job is compared.
    pub backlogs: [u32; 3],
    /// Of programs, one after the other.
    pub starts: u32,
}

impl Sizes {
    /// 200,000 is the number that the documented figures are for.
    pub fn of(jobs: u32) -> Self {
        Self {
            drain: jobs,
            queued: (jobs / 10).max(100),
            stuck: jobs / 2,
            hosts: jobs.saturating_mul(2),
            latency: (jobs / 100).max(20),
            backlogs: [jobs / 20, jobs / 2, jobs.saturating_mul(5)],
            starts: if jobs < 50_000 { 2 } else { 10 },
        }
    }
}
