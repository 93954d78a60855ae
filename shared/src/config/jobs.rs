//! core: the bounds of jobs, batches and files.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Lines of a batch's input.
    pub batch_lines_max: u64,
    /// Bytes of a batch's input.
    pub batch_bytes_max: u64,
    /// Bytes of one uploaded file.
    pub file_bytes_max: u64,
    /// The deadline of a job that does not say, in seconds.
    pub timeout_s: u64,
    /// How long a job and its answer are kept after its end, in seconds.
    pub keep_s: u64,
    /// How long a batch and its files are kept after its end, in seconds.
    pub keep_batches_s: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            batch_lines_max: 50_000,
            batch_bytes_max: 200 * 1024 * 1024,
            file_bytes_max: 512 * 1024 * 1024,
            timeout_s: 24 * 3_600,
            keep_s: 24 * 3_600,
            keep_batches_s: 30 * 24 * 3_600,
        }
    }
}

/// The longest deadline of a job: what its lane keeps.
const TIMEOUT_S_MAX: u64 = 7 * 24 * 3_600;

impl Jobs {
    /// # Errors
    /// Which value cannot work, and what would.
    pub fn check(&self) -> Result<(), String> {
        let Self { batch_lines_max, batch_bytes_max, file_bytes_max, timeout_s, keep_s, keep_batches_s } = *self;
        if [batch_lines_max, batch_bytes_max, file_bytes_max, timeout_s, keep_s, keep_batches_s].contains(&0) {
            return Err("every bound must be above zero".into());
        }
        if timeout_s > TIMEOUT_S_MAX {
            return Err(format!("timeout_s: at most {TIMEOUT_S_MAX} (7 days)"));
        }
        Ok(())
    }
}
