//! core: what a batch object says.

use crate::cli::out::Failed;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) status: State,
    pub(crate) endpoint: String,
    pub(crate) output_file_id: Option<String>,
    pub(crate) error_file_id: Option<String>,
    pub(crate) input_file_id: String,
    #[serde(default)]
    request_counts: Option<Counts>,
    #[serde(default)]
    errors: Option<Errors>,
}

/// Lines of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Validating,
    InProgress,
    Finalizing,
    Cancelling,
    Completed,
    Failed,
    Expired,
    Cancelled,
    /// One that came later than this program.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Deserialize)]
struct Errors {
    #[serde(default)]
    data: Vec<Complaint>,
}

/// What is wrong with a batch as a whole, or with a line that its validation refused.
#[derive(Debug, Deserialize)]
struct Complaint {
    code: Option<String>,
    message: Option<String>,
    line: Option<u64>,
}

impl Batch {
    pub(crate) fn read(json: &Value) -> Result<Self, Failed> {
        Self::deserialize(json).map_err(|error| Failed::broken(format!("the server's answer is no batch: {error}")))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.request_counts.unwrap_or_default()
    }

    /// Whether nothing of it will change any more.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.status, State::Completed | State::Failed | State::Expired | State::Cancelled)
    }

    /// What its validation found, the first few of it.
    pub(crate) fn complaints(&self) -> String {
        /// More say the same.
        const SHOWN_MAX: usize = 5;
        let all = self.errors.as_ref().map(|errors| errors.data.as_slice()).unwrap_or_default();
        let shown: Vec<String> = all.iter().take(SHOWN_MAX).map(Complaint::sentence).collect();
        if shown.is_empty() { "the server does not say why".into() } else { shown.join("; ") }
    }
}

impl Complaint {
    fn sentence(&self) -> String {
        let line = self.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let code = self.code.as_deref().unwrap_or("error");
        format!("{line}{code}: {}", self.message.as_deref().unwrap_or("no reason given"))
    }
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_batch_of_openai_is_read() {
        let batch = Batch::read(&json!({
            "id": "batch_1", "object": "batch", "endpoint": "/v1/embeddings", "errors": null, "input_file_id": "file-1",
            "completion_window": "24h", "status": "in_progress", "output_file_id": null, "error_file_id": null, "created_at": 1,
            "request_counts": { "total": 100, "completed": 95, "failed": 5 }, "metadata": null
        }));
        let batch = batch.unwrap();
        assert_eq!((batch.status, batch.counts()), (State::InProgress, Counts { total: 100, completed: 95, failed: 5 }));
        assert!(!batch.has_ended());
    }

    #[test]
    fn a_state_that_is_not_known_is_one_that_goes_on() {
        let batch = Batch::read(&json!({ "id": "b", "endpoint": "e", "input_file_id": "f", "status": "pondering" })).unwrap();
        assert_eq!((batch.status, batch.has_ended()), (State::Unknown, false));
    }

    #[test]
    fn what_validation_found_is_told_with_its_line() {
        let errors = json!({ "object": "list", "data": [{ "code": "invalid_json", "message": "Not JSON.", "line": 3, "param": null }] });
        let json = json!({ "id": "b", "endpoint": "e", "input_file_id": "f", "status": "failed", "errors": errors });
        assert_eq!(Batch::read(&json).unwrap().complaints(), "line 3: invalid_json: Not JSON.");
    }
}
