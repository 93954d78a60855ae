//! edge: how far long work is: a bar on a terminal, else a line now and then; on standard error.

use super::out;
use indicatif::{ProgressBar, ProgressStyle};
use shared::clock::{self, Time};
use std::time::Duration;

/// Between two lines where there is no terminal: a log of a night's work stays short.
const LINE_EVERY: Duration = Duration::from_secs(30);

const BAR: &str = "{elapsed_precise} {wide_bar} {human_pos} of {human_len} {prefix}, {per_sec}, {eta} left{msg}";

pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    began: Time,
    /// What was done before this run, which says nothing about its speed.
    before: Option<u64>,
    said: Option<Time>,
}

impl Progress {
    /// `what` is done: rows, or lines.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        bar.set_style(ProgressStyle::with_template(BAR).expect("the template is sound"));
        bar.set_prefix(what);
        Self { bar, what, began: clock::now(), before: None, said: None }
    }

    pub(crate) fn show(&mut self, total: u64, done: u64, failed: u64) {
        if self.before.is_none() {
            self.before = Some(done);
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        if failed > 0 {
            self.bar.set_message(format!(", {failed} failed"));
        }
        if self.bar.is_hidden() {
            self.line(total, done, failed);
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&mut self, total: u64, done: u64, failed: u64) {
        let now = clock::now();
        if self.said.is_some_and(|said| now.since(said) < LINE_EVERY) {
            return;
        }
        self.said = Some(now);
        let rate = rate(done - self.before.unwrap_or_default().min(done), now.since(self.began));
        let left = (total - done.min(total)).checked_div(rate).map_or_else(String::new, |seconds| format!(", {seconds} s left"));
        out::note(&format!("{done} of {total} {}, {failed} failed, {rate}/s{left}", self.what));
    }
}

/// Whole ones a second.
pub(crate) fn rate(done: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(done) * 1_000 / span.as_millis().max(1)).unwrap_or(u64::MAX)
}
