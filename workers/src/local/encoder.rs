//! core: the network: token ids to a vector for each row.

use super::ModelError;
use super::tokens::Padded;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
pub(super) use candle_transformers::models::bert::Config;
use candle_transformers::models::bert::{BertModel, DTYPE};

/// Tokens, padding included, that go through the network together. A call of more goes in slices, since the widest layer
/// and the attention of 64 texts of 256 tokens already take 300 MB.
const SLICE_TOKENS_MAX: usize = 64 * 256;

pub(super) struct Encoder {
    bert: BertModel,
    dimensions: usize,
}

impl Encoder {
    /// From a file of safetensors.
    pub(super) fn new(weights: Vec<u8>, config: &Config) -> Result<Self, ModelError> {
        let variables = VarBuilder::from_buffered_safetensors(weights, DTYPE, &Device::Cpu)?;
        Ok(Self { bert: BertModel::load(variables, config)?, dimensions: config.hidden_size })
    }

    pub(super) const fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn embed(&self, padded: &Padded) -> Result<Vec<Vec<f32>>, ModelError> {
        let width = padded.width().max(1);
        let rows = (SLICE_TOKENS_MAX / width).max(1);
        let slices = padded.lengths.chunks(rows).zip(padded.ids.chunks(rows * width));
        let mut vectors = Vec::with_capacity(padded.lengths.len());
        for (lengths, ids) in slices {
            vectors.extend(self.slice(lengths, ids, width)?);
        }
        Ok(vectors)
    }

    fn slice(&self, lengths: &[usize], ids: &[u32], width: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let ids = Tensor::from_slice(ids, (lengths.len(), width), &Device::Cpu)?;
        let mask = mask(lengths, width)?;
        let hidden = self.bert.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        Ok(pooled(&hidden, &mask)?.to_vec2()?)
    }
}

/// 1 where a row has a token, 0 where it has padding.
fn mask(lengths: &[usize], width: usize) -> candle_core::Result<Tensor> {
    let row = |&length: &usize| (0..width).map(move |place| if place < length { 1.0_f32 } else { 0.0 });
    Tensor::from_iter(lengths.iter().flat_map(row), &Device::Cpu)?.reshape((lengths.len(), width))
}

/// The mean over each row's tokens, of length 1. The mean's divisor goes with the length.
fn pooled(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let sum = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
    let length = sum.sqr()?.sum_keepdim(1)?.sqrt()?;
    sum.to_dtype(DType::F32)?.broadcast_div(&length)
}
