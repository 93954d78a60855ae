//! loop: the parts of a run: cut, upload, submit, watch, fetch, until the input is at its end. What has been done is in the
//! journal before the next thing is, so that a run that is killed goes on where it was.

use super::cut::Cutter;
use super::folder::Folder;
use super::harvest::Harvest;
use super::input::Input;
use super::journal::{Entry, Journal};
use super::plan::{Plan, Step};
use crate::cli::admin::escape;
use crate::cli::api::{Api, Batch, Counts, State};
use crate::cli::out::Failed;
use crate::cli::progress::Progress;
use std::collections::HashMap;
use std::time::Duration;

/// Batches at once: enough that one is always being worked on while another is uploaded and a third fetched.
const OPEN_MAX: usize = 4;

/// Between two looks at the batches.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What does not change while it runs.
pub(super) struct Job {
    pub(super) api: Api,
    pub(super) folder: Folder,
    pub(super) input: Input,
    pub(super) completion_window: String,
    /// Lines of one batch.
    pub(super) lines_max: u64,
}

pub(super) struct Run<'a> {
    job: &'a Job,
    plan: Plan,
    journal: Journal,
    /// `None`: the input is at its end.
    cutter: Option<Cutter>,
    /// How the open batches stood when they were last looked at.
    counts: HashMap<usize, Counts>,
}

impl<'a> Run<'a> {
    pub(super) fn new(job: &'a Job, plan: Plan, journal: Journal) -> Result<Self, Failed> {
        let purpose = &plan.purpose;
        let cutter = Cutter::new(&job.input, plan.next_row(), job.lines_max, &purpose.model, purpose.dimensions)?;
        Ok(Self { job, plan, journal, cutter: Some(cutter), counts: HashMap::new() })
    }

    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Everything is in the spool when this returns.
    pub(super) async fn finish(&mut self, progress: &mut Progress) -> Result<(), Failed> {
        self.submit_what_was_uploaded().await?;
        loop {
            let mut has_moved = self.open_another().await?;
            for part in self.plan.open() {
                has_moved |= self.look(part).await?;
                self.show(progress);
            }
            if self.cutter.is_none() && self.plan.open().is_empty() {
                return Ok(());
            }
            if !has_moved {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// An earlier run was ended between an upload and the word that a batch was made of it: there may be one.
    async fn submit_what_was_uploaded(&mut self) -> Result<(), Failed> {
        for part in self.plan.open() {
            if self.plan.parts[part].step == Step::Uploaded {
                self.submit(part, true).await?;
            }
        }
        Ok(())
    }

    /// Makes a batch of the next rows, if there is room for one.
    async fn open_another(&mut self) -> Result<bool, Failed> {
        if self.plan.open().len() >= OPEN_MAX {
            return Ok(false);
        }
        let Some(cutter) = &mut self.cutter else { return Ok(false) };
        let file = self.job.folder.part();
        let Some(rows) = cutter.cut(&file)? else {
            self.cutter = None;
            return Ok(false);
        };
        let part = self.plan.parts.len();
        let file = self.job.api.upload(&file).await?;
        self.record(Entry::Uploaded { part, rows, file })?;
        self.submit(part, false).await?;
        Ok(true)
    }

    async fn submit(&mut self, part: usize, may_be_there: bool) -> Result<(), Failed> {
        let file = &self.plan.parts[part].file;
        let batch = self.job.api.submit(file, "/v1/embeddings", &self.job.completion_window, may_be_there).await?;
        self.record(Entry::Submitted { part, batch: Batch::read(&batch)?.id })
    }

    /// How a part stands; true when it has come to its end.
    async fn look(&mut self, part: usize) -> Result<bool, Failed> {
        let Step::Submitted { batch } = &self.plan.parts[part].step else { return Ok(false) };
        let batch = Batch::read(&self.job.api.get(&format!("batches/{}", escape(batch))).await?)?;
        self.counts.insert(part, batch.counts());
        match batch.status {
            State::Failed => {
                self.record(Entry::Refused { part })?;
                Err(Failed::broken(format!("the server refused batch {}: {}", batch.id, batch.complaints())))
            }
            _ if batch.has_ended() => {
                self.fetch(part, &batch).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn fetch(&mut self, part: usize, batch: &Batch) -> Result<(), Failed> {
        let rows = self.plan.parts[part].rows.clone();
        let mut harvest = Harvest::new(&self.job.folder, rows, self.plan.rows, self.plan.dimensions);
        self.job.api.persist(async || harvest.gather(&self.job.api, batch).await).await?;
        let failed = harvest.store(part)?;
        let dimensions = harvest.dimensions();
        self.record(Entry::Fetched { part, dimensions, failed })?;
        for file in [&batch.output_file_id, &batch.error_file_id, &Some(batch.input_file_id.clone())].into_iter().flatten() {
            self.job.api.discard(file).await;
        }
        Ok(())
    }

    fn record(&mut self, entry: Entry) -> Result<(), Failed> {
        self.journal.write(&entry).map_err(|error| self.job.folder.broken(error))?;
        self.plan.apply(entry).expect("entries are made of the plan that they are applied to");
        Ok(())
    }

    fn show(&self, progress: &mut Progress) {
        let (mut done, mut failed) = self.plan.fetched();
        for counts in self.plan.open().iter().filter_map(|part| self.counts.get(part)) {
            done += counts.completed + counts.failed;
            failed += counts.failed;
        }
        progress.show(self.plan.rows, done, failed);
    }
}
