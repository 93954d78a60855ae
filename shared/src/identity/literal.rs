//! core: the keys that the configuration file gives literally, held as keyed hashes only: under a secret that lives no longer than
//! the process, looked up by a part of the hash and compared in constant time, so that neither memory nor timing tells one.

use super::caller::Key;
use blake3::Hash;
use foldhash::HashMap;
use std::sync::Arc;

pub(super) struct LiteralKeys {
    secret: [u8; 32],
    by_prefix: HashMap<u64, Vec<(Hash, Arc<Key>)>>,
}

impl LiteralKeys {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret, by_prefix: HashMap::default() }
    }

    pub(super) fn insert(&mut self, text: &[u8], key: Key) {
        let hash = self.hash(text);
        self.by_prefix.entry(prefix(&hash)).or_default().push((hash, Arc::new(key)));
    }

    pub(super) fn find(&self, text: &[u8]) -> Option<&Arc<Key>> {
        let hash = self.hash(text);
        let candidates = self.by_prefix.get(&prefix(&hash))?;
        // This comparison takes constant time.
        candidates.iter().find(|(known, _)| *known == hash).map(|(_, key)| key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.by_prefix.values().flatten().map(|(_, key)| key)
    }

    fn hash(&self, text: &[u8]) -> Hash {
        blake3::keyed_hash(&self.secret, text)
    }
}

fn prefix(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
