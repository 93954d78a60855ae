//! edge: a backend that is a model in this process: no server, no bodies, its inputs straight to the network.
//!
//! The work is done on a thread for blocking work and keeps its seat until that thread is through: a caller that leaves does
//! not let the next call start beside it. What nobody waits for any more ends at the next slice.

use super::{BackendError, Blame, BuildError, EmbedCall, Embedded, classify, embeddings};
use crate::local::Model;
use bytes::Bytes;
use serde::Deserialize;
use shared::config;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
pub(super) struct Local {
    model: Arc<Model>,
    /// As many as the backend has concurrency.
    seats: Arc<Semaphore>,
}

/// What a caller may ask for beside the inputs; the rest is ignored.
#[derive(Deserialize)]
struct Params {
    dimensions: Option<usize>,
}

impl Local {
    /// Reads the model, which takes a moment and its weights' size in memory.
    pub(super) fn load(config: &config::Backend, folder: &Path) -> Result<Self, BuildError> {
        let model = Model::load(folder).map_err(|cause| BuildError::Model { name: config.name.clone(), cause })?;
        Ok(Self { model: Arc::new(model), seats: Arc::new(Semaphore::new(config.concurrency as usize)) })
    }

    /// A text beyond the model's length counts up to there.
    pub(super) async fn embed(&self, call: &EmbedCall<'_>) -> Result<Embedded, BackendError> {
        self.check_dimensions(call.params)?;
        let texts = texts(call)?;
        let seat = Arc::clone(&self.seats).acquire_owned().await.expect("the semaphore is never closed");
        let (model, left) = (Arc::clone(&self.model), CancellationToken::new());
        let _leaving = left.clone().drop_guard();
        let made = tokio::task::spawn_blocking(move || {
            let _seat = seat;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            model.embed_by_length(&texts, || left.is_cancelled())
        });
        let made = made.await.map_err(|_| classify::broken_down("it panicked"))?;
        let made = made.map_err(|error| classify::broken_down(error.to_string()))?;
        embeddings::check(&made.vectors)?;
        Ok(Embedded { vectors: made.vectors, prompt_tokens: u32::try_from(made.tokens).ok() })
    }

    fn check_dimensions(&self, params: &str) -> Result<(), BackendError> {
        let asked = serde_json::from_str::<Params>(&format!("{{{params}}}")).ok().and_then(|params| params.dimensions);
        match asked {
            Some(asked) if asked != self.model.dimensions() => {
                let only = self.model.dimensions();
                Err(classify::refused(
                    format!("This model's embeddings have {only} dimensions; ask for as many, or do not say."),
                    Blame::Backend,
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Of all requests of the call, in order.
fn texts(call: &EmbedCall<'_>) -> Result<Vec<String>, BackendError> {
    let mut texts = Vec::with_capacity(call.count as usize);
    for inputs in call.inputs {
        texts.extend(read(inputs)?);
    }
    if texts.len() == call.count as usize { Ok(texts) } else { Err(BackendError::inputs_unreadable()) }
}

fn read(inputs: &Bytes) -> Result<Vec<String>, BackendError> {
    let list = [b"[", inputs.as_ref(), b"]"].concat();
    let no_texts = "This model reads texts and no token ids; send each input as a string.";
    serde_json::from_slice(&list).map_err(|_| classify::refused(no_texts, Blame::MaybeItem))
}

/// The configuration gives a local model to array models only.
pub(super) fn not_a_generator() -> BackendError {
    classify::refused("This model makes embeddings only.", Blame::Backend)
}
