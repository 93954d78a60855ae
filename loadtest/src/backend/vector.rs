//! core: the vector of a text: the same for the same text, another for any other.

use crate::{draw, tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// As many as all-MiniLM-L6-v2 has.
const DIMENSIONS: u64 = 384;

/// Each in [-1, 1).
pub fn floats(text: &str) -> Vec<f32> {
    let seed = tag::hash("vector", text);
    (0..DIMENSIONS).map(|n| (draw::unit(seed, n) * 2.0 - 1.0) as f32).collect()
}

/// Its little-endian floats, as the official SDKs ask for them.
pub fn base64(text: &str) -> String {
    let bytes: Vec<u8> = floats(text).iter().flat_map(|float| float.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_vector_and_another_text_another() {
        assert_eq!(floats("a"), floats("a"));
        assert_ne!(floats("a"), floats("b"));
        assert!(floats("a").iter().all(|float| (-1.0..=1.0).contains(float)));
        assert_eq!(base64("a").len(), 2_048);
    }
}
