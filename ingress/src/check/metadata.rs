//! core: the notes that a caller puts on a batch or on a background response.

use super::invalid;
use shared::error::Failure;
use std::collections::BTreeMap;

/// OpenAI's bounds.
const ENTRIES_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 512;

pub(crate) type Metadata = BTreeMap<Box<str>, Box<str>>;

/// # Errors
/// `invalid_value`.
pub(crate) fn metadata(metadata: &Metadata) -> Result<(), Failure> {
    let fits = |key: &str, value: &str| key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX;
    if metadata.len() <= ENTRIES_MAX && metadata.iter().all(|(key, value)| fits(key, value)) {
        return Ok(());
    }
    let expected = format!("at most {ENTRIES_MAX} strings of {VALUE_BYTES_MAX} bytes, each under a name of {KEY_BYTES_MAX}");
    Err(invalid("metadata", &expected))
}
