//! core: texts into the token ids of one call, each padded to the longest.

use super::ModelError;
use tokenizers::{Tokenizer, TruncationParams};

/// What stands where a shorter text has ended; the mask keeps it out of every sum.
const PADDING: u32 = 0;

pub(super) struct Tokens(Tokenizer);

/// The texts of a call: rows of one length.
pub(super) struct Padded {
    /// Tokens of each text, special ones included.
    pub(super) lengths: Vec<usize>,
    /// Of all rows, one after another.
    pub(super) ids: Vec<u32>,
}

impl Tokens {
    /// From a `tokenizer.json`, whose own padding and truncation do not count: texts are cut at `tokens_max`.
    pub(super) fn new(json: &[u8], tokens_max: usize) -> Result<Self, ModelError> {
        let broken = |error: tokenizers::Error| ModelError::Tokenizer(error.to_string());
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(broken)?;
        tokenizer.with_truncation(Some(TruncationParams { max_length: tokens_max, ..Default::default() })).map_err(broken)?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }

    pub(super) fn padded(&self, texts: &[&str]) -> Result<Padded, ModelError> {
        // Its words are the tokenizer's: they may quote the text.
        let rows = self.0.encode_batch_fast(texts.to_vec(), true).map_err(|_| ModelError::Text)?;
        let lengths: Vec<usize> = rows.iter().map(tokenizers::Encoding::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padded = |row: &[u32]| row.iter().copied().chain(std::iter::repeat(PADDING)).take(longest).collect::<Vec<_>>();
        Ok(Padded { ids: rows.iter().flat_map(|row| padded(row.get_ids())).collect(), lengths })
    }
}

impl Padded {
    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Tokens of a row.
    pub(super) fn width(&self) -> usize {
        self.ids.len().checked_div(self.lengths.len()).unwrap_or(0)
    }
}
