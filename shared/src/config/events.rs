//! core: what a tenant may be told of.

use serde::{Deserialize, Serialize};

/// What may be told. The names of batches and responses are OpenAI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    #[serde(rename = "batch.completed")]
    BatchCompleted,
    #[serde(rename = "batch.failed")]
    BatchFailed,
    #[serde(rename = "batch.expired")]
    BatchExpired,
    #[serde(rename = "batch.cancelled")]
    BatchCancelled,
    #[serde(rename = "response.completed")]
    ResponseCompleted,
    #[serde(rename = "response.failed")]
    ResponseFailed,
    #[serde(rename = "response.cancelled")]
    ResponseCancelled,
    #[serde(rename = "response.incomplete")]
    ResponseIncomplete,
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    #[serde(rename = "job.expired")]
    JobExpired,
}

impl EventKind {
    pub const ALL: [Self; 12] = [
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::BatchExpired,
        Self::BatchCancelled,
        Self::ResponseCompleted,
        Self::ResponseFailed,
        Self::ResponseCancelled,
        Self::ResponseIncomplete,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCancelled,
        Self::JobExpired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::BatchExpired => "batch.expired",
            Self::BatchCancelled => "batch.cancelled",
            Self::ResponseCompleted => "response.completed",
            Self::ResponseFailed => "response.failed",
            Self::ResponseCancelled => "response.cancelled",
            Self::ResponseIncomplete => "response.incomplete",
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::JobExpired => "job.expired",
        }
    }

    /// The kinds that a pattern stands for: a name, `batch.*`, or `*`.
    ///
    /// # Errors
    /// A sentence, when there are none.
    pub fn matching(pattern: &str) -> Result<Vec<Self>, String> {
        let prefix = pattern.strip_suffix('*').filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        let fits = |kind: &Self| prefix.map_or(kind.as_str() == pattern, |prefix| kind.as_str().starts_with(prefix));
        let kinds: Vec<_> = Self::ALL.into_iter().filter(fits).collect();
        if kinds.is_empty() { Err(format!("events: `{pattern}` is no event; such are batch.*, response.*, job.failed")) } else { Ok(kinds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_a_family_or_all() {
        assert_eq!(EventKind::matching("batch.failed").unwrap(), [EventKind::BatchFailed]);
        assert_eq!(EventKind::matching("response.*").unwrap().len(), 4);
        assert_eq!(EventKind::matching("*").unwrap(), EventKind::ALL);
        assert!(EventKind::matching("batch*").is_err() && EventKind::matching("batch.done").is_err());
    }

    #[test]
    fn a_name_is_the_same_wherever_it_is_written() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
