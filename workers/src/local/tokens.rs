//! core: texts into token ids.

use super::ModelError;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

pub(super) struct Tokens(Tokenizer);

/// The texts of a call, each as it was cut.
pub(super) struct Rows(Vec<Encoding>);

impl Tokens {
    /// From a `tokenizer.json`, whose own padding and truncation do not count: texts are cut at `tokens_max`.
    pub(super) fn new(json: &[u8], tokens_max: usize) -> Result<Self, ModelError> {
        let broken = |error: tokenizers::Error| ModelError::Tokenizer(error.to_string());
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(broken)?;
        tokenizer.with_truncation(Some(TruncationParams { max_length: tokens_max, ..Default::default() })).map_err(broken)?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }

    pub(super) fn rows(&self, texts: &[&str]) -> Result<Rows, ModelError> {
        // Its words are the tokenizer's: they may quote the text.
        self.0.encode_batch_fast(texts.to_vec(), true).map(Rows).map_err(|_| ModelError::Text)
    }
}

impl Rows {
    /// Tokens of each text, special ones included.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.0.iter().map(Encoding::len).collect()
    }

    pub(super) fn ids(&self, place: usize) -> &[u32] {
        self.0[place].get_ids()
    }
}
