//! core: a large map of which a changed copy is cheap: it shares all shards with the old one but that of the change.

use foldhash::HashMap;
use foldhash::fast::RandomState;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A change of one key copies this many pointers and one shard: of a million keys, a thousand entries.
const SHARDS: usize = 1_024;

#[derive(Clone)]
pub(super) struct Shards<K, V> {
    shards: Box<[Arc<HashMap<K, V>>]>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // All begin as the same empty shard.
        Self { shards: vec![Arc::default(); SHARDS].into(), hasher: RandomState::default(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shards<K, V> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[self.index(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let index = self.index(&key);
        let before = Arc::make_mut(&mut self.shards[index]).insert(key, value);
        self.len += usize::from(before.is_none());
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let index = self.index(key);
        if self.shards[index].contains_key(key) {
            Arc::make_mut(&mut self.shards[index]).remove(key);
            self.len -= 1;
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).expect("below the number of shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_copy_leaves_the_original_and_shares_what_did_not_change() {
        let mut old: Shards<u32, u32> = Shards::default();
        (0..10_000).for_each(|n| old.insert(n, n));
        let mut new = old.clone();
        new.insert(7, 70);
        new.remove(&8);
        new.remove(&10_001);
        assert_eq!((old.get(&7), old.get(&8), old.len()), (Some(&7), Some(&8), 10_000));
        assert_eq!((new.get(&7), new.get(&8), new.len()), (Some(&70), None, 9_999));
        let shared = old.shards.iter().zip(&new.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared} of {SHARDS}");
        assert_eq!(new.values().count(), new.len());
    }
}
