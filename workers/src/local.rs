//! edge: a sentence-embedding model in this process: a BERT read from a folder, at work on the processor.
//!
//! The folder is what sentence-transformers publishes: `config.json`, `tokenizer.json`, `model.safetensors` and, where the
//! model wants shorter texts than it could read, `sentence_bert_config.json`. A text's vector is the mean over its tokens, of
//! length 1. The texts of one call are padded to its longest, as engines do that batch statically: whoever calls forms the
//! batches. There is no queue here, and [`Model::embed`] blocks: one call takes all the threads that it finds.

mod encoder;
mod tokens;

use encoder::Encoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use tokens::Tokens;

/// A model that is loaded.
pub struct Model {
    tokens: Tokens,
    encoder: Encoder,
}

/// The answer to one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// One for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts, special ones included, padding not.
    pub tokens: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}: {source}; a model's folder holds config.json, tokenizer.json and model.safetensors", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    #[error("the texts could not be cut into tokens")]
    Text,
    #[error("the model: {0}")]
    Compute(#[from] candle_core::Error),
}

/// What `sentence_bert_config.json` says.
#[derive(Deserialize)]
struct Limits {
    max_seq_length: usize,
}

impl Model {
    /// Reads a model's folder: its weights are in memory from then on.
    ///
    /// # Errors
    /// A file is missing, or is not of a BERT.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let config: encoder::Config = json(&folder.join("config.json"))?;
        let limits = folder.join("sentence_bert_config.json");
        let tokens_max = if limits.is_file() { json::<Limits>(&limits)?.max_seq_length } else { config.max_position_embeddings };
        let tokens = Tokens::new(&read(&folder.join("tokenizer.json"))?, tokens_max.min(config.max_position_embeddings))?;
        let encoder = Encoder::new(read(&folder.join("model.safetensors"))?, &config)?;
        Ok(Self { tokens, encoder })
    }

    /// Numbers in a vector.
    pub const fn dimensions(&self) -> usize {
        self.encoder.dimensions()
    }

    /// The vector of each text; a text beyond the model's length counts up to there. Blocks for as long as the work takes.
    ///
    /// # Errors
    /// The texts or the model do not allow it.
    pub fn embed(&self, texts: &[&str]) -> Result<Embedded, ModelError> {
        let padded = self.tokens.padded(texts)?;
        Ok(Embedded { vectors: self.encoder.embed(&padded)?, tokens: padded.tokens() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::File { path: path.to_owned(), source })
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&read(path)?).map_err(|source| ModelError::Json { path: path.to_owned(), source })
}
