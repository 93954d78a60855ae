//! core: tokens that were verified before: a signature costs some 50 times a hash. Kept by a keyed hash, until
//! they expire or their issuer's keys change.

use super::claims::Verified;
use blake3::Hash;
use foldhash::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Twice the requests in flight by default; some 2 MiB. When it is full, all are forgotten and verified once more.
const TOKENS_MAX: usize = 20_000;

pub(super) struct Cache {
    secret: [u8; 32],
    tokens: Mutex<HashMap<[u8; 32], Entry>>,
}

struct Entry {
    issuer: usize,
    /// Of the issuer's keys when it was verified.
    generation: u64,
    verified: Arc<Verified>,
}

impl Cache {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret, tokens: Mutex::default() }
    }

    /// `generation` tells that of an issuer's present keys.
    pub(super) fn get(&self, token: &[u8], now: u64, generation: impl Fn(usize) -> u64) -> Option<Arc<Verified>> {
        let hash = self.hash(token);
        let tokens = self.tokens();
        let entry = tokens.get(hash.as_bytes())?;
        let is_valid = now < entry.verified.until && entry.generation == generation(entry.issuer);
        is_valid.then(|| Arc::clone(&entry.verified))
    }

    pub(super) fn insert(&self, token: &[u8], issuer: usize, generation: u64, verified: Arc<Verified>, now: u64) {
        let hash = self.hash(token);
        let mut tokens = self.tokens();
        if tokens.len() >= TOKENS_MAX {
            tokens.retain(|_, entry| now < entry.verified.until);
        }
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(*hash.as_bytes(), Entry { issuer, generation, verified });
    }

    fn hash(&self, token: &[u8]) -> Hash {
        blake3::keyed_hash(&self.secret, token)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::identity::Scope;

    fn verified(until: u64) -> Arc<Verified> {
        Arc::new(Verified { tenant: "t".into(), role: None, scope: Arc::new(Scope::default()), until })
    }

    #[test]
    fn a_token_is_forgotten_when_it_expires_or_its_issuers_keys_change() {
        let cache = Cache::new([7; 32]);
        cache.insert(b"a", 0, 1, verified(10), 0);
        assert!(cache.get(b"a", 9, |_| 1).is_some());
        assert!(cache.get(b"a", 10, |_| 1).is_none());
        assert!(cache.get(b"a", 9, |_| 2).is_none());
        assert!(cache.get(b"b", 9, |_| 1).is_none());
    }

    #[test]
    fn a_flood_of_tokens_never_fills_more_than_its_place() {
        let cache = Cache::new([7; 32]);
        let insert = |n: usize, until| cache.insert(&n.to_le_bytes(), 0, 1, verified(until), 1);
        (0..TOKENS_MAX).for_each(|n| insert(n, if n == 0 { 10 } else { 1 }));
        insert(TOKENS_MAX, 10);
        assert_eq!(cache.tokens().len(), 2, "what had expired made room");
        (0..TOKENS_MAX).for_each(|n| insert(n, 10));
        assert!(cache.tokens().len() <= TOKENS_MAX);
    }
}
