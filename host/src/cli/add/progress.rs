//! How far adding is: a bar where people look on, nothing where a program does.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    jobs: u64,
}

impl Progress {
    /// With the size of the file in bytes, where it has one.
    pub(super) fn new(size: Option<u64>) -> Self {
        // Hidden unless standard error is a terminal.
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{bar:30} {percent}%  {binary_bytes} of {binary_total_bytes}  {msg}, {eta} left",
            None => "{spinner} {binary_bytes}  {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, began: Instant::now(), jobs: 0 }
    }

    /// That many more jobs are done.
    pub(super) fn more(&mut self, jobs: usize) {
        self.jobs += jobs as u64;
        self.bar.set_message(format!("{} jobs, {}", HumanCount(self.jobs), self.rate()));
    }

    /// So many bytes of the file are done.
    pub(super) fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Writes to the terminal without the bar in between.
    pub(super) fn aside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Takes the bar away, and says what was done in what time.
    pub(super) fn finish(self) -> String {
        self.bar.finish_and_clear();
        let plural = if self.jobs == 1 { "" } else { "s" };
        let took = self.began.elapsed();
        let time = if took < Duration::from_secs(60) {
            format!("{:.1} s", took.as_secs_f64())
        } else {
            HumanDuration(took).to_string()
        };
        format!("{} job{plural} in {time} ({})", HumanCount(self.jobs), self.rate())
    }

    fn rate(&self) -> String {
        let rate = self.jobs as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        format!("{}/s", HumanCount(rate as u64))
    }
}
