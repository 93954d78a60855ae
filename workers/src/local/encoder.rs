//! core: the network: token ids to a vector for each row.

use super::ModelError;
use super::slices::Slice;
use super::tokens::Rows;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
pub(super) use candle_transformers::models::bert::Config;
use candle_transformers::models::bert::{BertModel, DTYPE};

/// What stands where a shorter text has ended; the mask keeps it out of every sum.
const PADDING: u32 = 0;

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

    /// The vectors of a slice's rows, in its order.
    pub(super) fn embed(&self, rows: &Rows, slice: &Slice) -> Result<Vec<Vec<f32>>, ModelError> {
        let shape = (slice.rows.len(), slice.width);
        let padded = |&row: &usize| rows.ids(row).iter().copied().chain(std::iter::repeat(PADDING)).take(slice.width);
        let ids = slice.rows.iter().flat_map(padded).collect::<Vec<u32>>();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = mask(rows, slice)?.reshape(shape)?;
        let hidden = self.bert.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        Ok(pooled(&hidden, &mask)?.to_vec2()?)
    }
}

/// 1 where a row has a token, 0 where it has padding.
fn mask(rows: &Rows, slice: &Slice) -> candle_core::Result<Tensor> {
    let row = |&row: &usize| {
        let length = rows.ids(row).len();
        (0..slice.width).map(move |place| if place < length { 1.0_f32 } else { 0.0 })
    };
    Tensor::from_iter(slice.rows.iter().flat_map(row), &Device::Cpu)
}

/// The mean over each row's tokens, of length 1. The mean's divisor goes with the length.
fn pooled(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let sum = hidden.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
    let length = sum.sqr()?.sum_keepdim(1)?.sqrt()?;
    sum.to_dtype(DType::F32)?.broadcast_div(&length)
}
