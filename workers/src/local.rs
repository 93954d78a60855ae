//! edge: a sentence-embedding model in this process: a BERT read from a folder, at work on the processor.
//!
//! The folder is what sentence-transformers publishes: `config.json`, `tokenizer.json`, `model.safetensors` and, where the
//! model wants shorter texts than it could read, `sentence_bert_config.json`. A text's vector is the mean over its tokens, of
//! length 1. There is no queue here, and every call blocks: it takes all the threads that it finds.
//!
//! [`Model::embed`] pads the texts of a call to its longest, as engines do that batch statically: whoever calls forms the
//! batches. [`Model::embed_by_length`] forms them itself.

mod encoder;
mod slices;
mod tokens;

use encoder::Encoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use slices::Slice;
use std::io;
use std::path::{Path, PathBuf};
use tokens::{Rows, Tokens};

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
    #[error("config.json says that it is a `{0}`, and only models of the type `bert` are known here")]
    Architecture(String),
    #[error("1_Pooling/config.json: the model's vectors are no means over its tokens, and only those are known here")]
    Pooling,
    #[error("the texts could not be cut into tokens")]
    Text,
    #[error("nobody waits for it any more")]
    Abandoned,
    #[error("the model: {0}")]
    Compute(#[from] candle_core::Error),
}

/// What `sentence_bert_config.json` says.
#[derive(Deserialize)]
struct Limits {
    max_seq_length: usize,
}

/// What `config.json` says of the network's kind.
#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
}

/// What `1_Pooling/config.json` says.
#[derive(Deserialize)]
struct Pooling {
    pooling_mode_mean_tokens: bool,
}

impl Model {
    /// Reads a model's folder: its weights are in memory from then on.
    ///
    /// # Errors
    /// A file is missing, or is not of a BERT whose vectors are means.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        check_kind(folder)?;
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
        let rows = self.tokens.rows(texts)?;
        let slices = slices::in_order(&rows.lengths());
        self.sliced(&rows, &slices, || false)
    }

    /// The same vectors, with texts of similar length together: hardly any padding. Asks before each slice whether the call
    /// is `abandoned`.
    ///
    /// # Errors
    /// As [`Self::embed`]; that nobody waits for it any more.
    pub fn embed_by_length(&self, texts: &[&str], abandoned: impl Fn() -> bool) -> Result<Embedded, ModelError> {
        let rows = self.tokens.rows(texts)?;
        let slices = slices::by_length(&rows.lengths());
        self.sliced(&rows, &slices, abandoned)
    }

    fn sliced(&self, rows: &Rows, slices: &[Slice], abandoned: impl Fn() -> bool) -> Result<Embedded, ModelError> {
        let lengths = rows.lengths();
        let mut vectors = vec![Vec::new(); lengths.len()];
        for slice in slices {
            if abandoned() {
                return Err(ModelError::Abandoned);
            }
            for (&row, vector) in slice.rows.iter().zip(self.encoder.embed(rows, slice)?) {
                vectors[row] = vector;
            }
        }
        Ok(Embedded { vectors, tokens: lengths.iter().sum() })
    }
}

fn check_kind(folder: &Path) -> Result<(), ModelError> {
    let kind: Kind = json(&folder.join("config.json"))?;
    if let Some(other) = kind.model_type.filter(|kind| kind != "bert") {
        return Err(ModelError::Architecture(other));
    }
    let pooling = folder.join("1_Pooling/config.json");
    let is_mean = !pooling.is_file() || json::<Pooling>(&pooling)?.pooling_mode_mean_tokens;
    if is_mean { Ok(()) } else { Err(ModelError::Pooling) }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::File { path: path.to_owned(), source })
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    serde_json::from_slice(&read(path)?).map_err(|source| ModelError::Json { path: path.to_owned(), source })
}
