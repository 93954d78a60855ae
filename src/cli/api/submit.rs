//! edge: makes a batch of an uploaded file, once. A try whose answer is lost may have worked: before a further one, the server's
//! batches are searched for one of this file.

use super::{Api, Method, State, Trouble};
use crate::cli::admin::escape;
use crate::cli::out::Failed;
use serde_json::{Value, json};

/// Pages of a hundred batches that are searched: the batch of a try just before is among the newest.
const PAGES_MAX: usize = 50;

impl Api {
    /// `may_be_there`: somebody tried before, and does not know what came of it.
    pub(crate) async fn submit(&self, file: &str, endpoint: &str, window: &str, may_be_there: bool) -> Result<Value, Failed> {
        let wanted = json!({ "input_file_id": file, "endpoint": endpoint, "completion_window": window });
        let mut may_be_there = may_be_there;
        let attempt = async || {
            if may_be_there && let Some(batch) = self.batch_of(file).await? {
                return Ok(batch);
            }
            may_be_there = true;
            self.object(Method::POST, "batches", Some(&wanted)).await
        };
        self.persist(attempt).await
    }

    /// The batch of this file. One that the server found wrong is none: it may be submitted again.
    async fn batch_of(&self, file: &str) -> Result<Option<Value>, Trouble> {
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let page = self.object(Method::GET, &format!("batches?limit=100{after}"), None).await?;
            let batches = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(ours) = batches.iter().find(|batch| batch["input_file_id"] == file && batch["status"] != State::Failed.as_str()) {
                return Ok(Some(ours.clone()));
            }
            match batches.last().and_then(|batch| batch["id"].as_str()) {
                Some(last) if page["has_more"] == true => after = format!("&after={}", escape(last)),
                _ => break,
            }
        }
        Ok(None)
    }
}
