//! edge: where the sandbox's vectors come from: a hash of each input, or a real model, which takes the time it takes.

use super::accelerator::Seat;
use super::embedding::Embedding;
use super::hash::Fnv;
use super::request::Rejected;
use std::path::Path;
#[cfg(feature = "local")]
use {crate::local::Model, std::sync::Arc};

/// The maker of the vectors.
#[derive(Clone, Default)]
pub enum Source {
    #[default]
    Hash,
    #[cfg(feature = "local")]
    Model(Arc<Model>),
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[cfg(feature = "local")]
    #[error(transparent)]
    Model(#[from] crate::local::ModelError),
    #[cfg(not(feature = "local"))]
    #[error("this executable has no local models: build it with `cargo build --release --features local`")]
    NotBuilt,
}

/// The vectors of a call, in order, and the tokens of all inputs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vectors {
    pub(crate) rows: Vec<Vec<f32>>,
    pub(crate) tokens: usize,
}

impl Source {
    /// A model read from a folder.
    ///
    /// # Errors
    /// The folder holds none, or this executable was built without local models.
    #[cfg(feature = "local")]
    pub fn model(folder: &Path) -> Result<Self, SourceError> {
        Ok(Self::Model(Arc::new(Model::load(folder)?)))
    }

    #[cfg(not(feature = "local"))]
    pub const fn model(_folder: &Path) -> Result<Self, SourceError> {
        Err(SourceError::NotBuilt)
    }

    /// The only length of its vectors, if it cannot make them of any.
    pub(crate) fn dimensions(&self) -> Option<usize> {
        match self {
            Self::Hash => None,
            #[cfg(feature = "local")]
            Self::Model(model) => Some(model.dimensions()),
        }
    }

    /// The vectors of a call, made in this seat. `None`: it failed, as the log says.
    pub(crate) async fn vectors(&self, call: &Embedding, key: Fnv, seat: Seat) -> Result<Option<Vectors>, Rejected> {
        match self {
            Self::Hash => {
                drop(seat);
                Ok(Some(call.hashed(key)))
            }
            #[cfg(feature = "local")]
            Self::Model(model) => modelled(Arc::clone(model), call, seat).await,
        }
    }
}

/// On a thread for blocking work, which keeps the seat until it is through, even if the caller leaves.
#[cfg(feature = "local")]
async fn modelled(model: Arc<Model>, call: &Embedding, seat: Seat) -> Result<Option<Vectors>, Rejected> {
    let texts = call.texts(model.dimensions())?;
    let made = tokio::task::spawn_blocking(move || {
        let _seat = seat;
        model.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    });
    match made.await {
        Ok(Ok(embedded)) => Ok(Some(Vectors { rows: embedded.vectors, tokens: embedded.tokens })),
        Ok(Err(error)) => {
            tracing::error!(%error, "the model failed");
            Ok(None)
        }
        Err(_) => Ok(None), // It panicked, and has said so.
    }
}
