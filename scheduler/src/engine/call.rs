//! core: one call while it is being filled: who is in it, and whether one more may be.

use super::item::Shape;
use shared::domain::RequestId;

/// What one array call may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) inputs: u32,
    /// By [`size`].
    pub(super) tokens: u64,
    pub(super) bytes: usize,
    pub(super) padded: bool,
}

/// What a call is measured by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measure {
    inputs: u32,
    tokens: u64,
    longest: u32,
    bytes: usize,
}

impl Measure {
    pub(super) fn with(self, shape: &Shape) -> Self {
        Self {
            inputs: self.inputs.saturating_add(shape.inputs),
            tokens: self.tokens + u64::from(shape.tokens),
            longest: self.longest.max(shape.longest),
            bytes: self.bytes.saturating_add(shape.bytes),
        }
    }

    /// The tokens that a backend computes: where it pads, every input is as long as the longest.
    pub(super) fn size(self, padded: bool) -> u64 {
        if padded { u64::from(self.inputs) * u64::from(self.longest) } else { self.tokens }
    }

    pub(super) fn is_within(self, bounds: &Bounds) -> bool {
        self.inputs <= bounds.inputs && self.size(bounds.padded) <= bounds.tokens && self.bytes <= bounds.bytes
    }
}

#[derive(Debug)]
pub(super) struct Call {
    bounds: Bounds,
    measure: Measure,
    ids: Vec<RequestId>,
}

impl Call {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, measure: Measure::default(), ids: Vec::new() }
    }

    /// Takes it in if it fits. What is too large for any call is let in alone.
    pub(super) fn offer(&mut self, shape: &Shape) {
        let measure = self.measure.with(shape);
        if self.ids.is_empty() || measure.is_within(&self.bounds) {
            self.measure = measure;
            self.ids.push(shape.id);
        }
    }

    /// Nothing more can fit.
    pub(super) fn is_full(&self) -> bool {
        self.measure.inputs >= self.bounds.inputs || self.size() >= self.bounds.tokens
    }

    pub(super) fn size(&self) -> u64 {
        self.measure.size(self.bounds.padded)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn into_ids(self) -> Vec<RequestId> {
        self.ids
    }
}
