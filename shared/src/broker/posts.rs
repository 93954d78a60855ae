//! edge: unqueued messages between listeners of one process: a post is a call of each listener, lossy like core NATS.

use crate::broker::{Address, Inbox, Listener};
use async_trait::async_trait;
use bytes::Bytes;
use foldhash::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;

/// Frames that may wait in one inbox. Past it the newest is dropped, as a NATS client does: what is already there stays in
/// order, and the receiver sees one gap at the end instead of many.
const WAITING_MAX: usize = 65_536;

type Key = u64;

/// Shared, so that a post calls them without holding the lock.
type Listeners = Arc<[(Key, Listener)]>;

/// Who listens where. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Posts {
    /// Read-mostly: listeners come and go with roles and processes, posts come with every message.
    listeners: Arc<RwLock<HashMap<Address, Listeners>>>,
    keys: Arc<AtomicU64>,
}

impl std::fmt::Debug for Posts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posts").finish_non_exhaustive()
    }
}

impl Posts {
    /// Calls the listeners, without any lock held: they may post themselves. False: there are none.
    pub(super) fn post(&self, to: &Address, frame: &Bytes) -> bool {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).get(to).cloned();
        for (_, listener) in listeners.iter().flat_map(|all| all.iter()) {
            listener(frame.clone());
        }
        listeners.is_some()
    }

    /// Adds a listener, which stays until its place is dropped.
    pub(super) fn attach(&self, at: &Address, listener: Listener) -> Place {
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        let added = [(key, listener)];
        self.change(at, |all| all.iter().chain(&added).cloned().collect());
        Place { posts: self.clone(), at: at.clone(), key }
    }

    pub(super) fn listen(&self, at: &Address) -> MemoryInbox {
        let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_MAX);
        let address = at.clone();
        let listener = move |frame| {
            if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(frame) {
                tracing::warn!(to = ?address, "a frame was dropped: its inbox is {WAITING_MAX} behind");
            }
        };
        MemoryInbox { receiver, _place: self.attach(at, Arc::new(listener)) }
    }

    fn change(&self, at: &Address, change: impl FnOnce(&[(Key, Listener)]) -> Listeners) {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(listeners.get(at).map_or(&[], |all| all.as_ref()));
        let before = if changed.is_empty() { listeners.remove(at) } else { listeners.insert(at.clone(), changed) };
        drop(listeners);
        drop(before); // What a listener holds may end with it, and may be a place here itself.
    }
}

/// A listener's place at an address.
pub(super) struct Place {
    posts: Posts,
    at: Address,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.posts.change(&self.at, |all| all.iter().filter(|(key, _)| *key != self.key).cloned().collect());
    }
}

pub(super) struct MemoryInbox {
    receiver: mpsc::Receiver<Bytes>,
    _place: Place,
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn an_inbox_that_fell_behind_loses_the_newest() {
        let posts = Posts::default();
        let mut inbox = posts.listen(&Address::Heartbeats);
        for n in 0..WAITING_MAX + 5 {
            posts.post(&Address::Heartbeats, &Bytes::from(n.to_string()));
        }
        let mut heard = Vec::new();
        while let Ok(frame) = inbox.receiver.try_recv() {
            heard.push(frame);
        }
        assert_eq!(heard.len(), WAITING_MAX);
        assert_eq!(heard.last().unwrap(), &Bytes::from((WAITING_MAX - 1).to_string()));
    }

    #[test]
    fn listeners_that_are_gone_are_forgotten() {
        let posts = Posts::default();
        for _ in 0..10 {
            drop(posts.listen(&Address::Cancels));
        }
        let _inbox = posts.listen(&Address::Heartbeats);
        assert_eq!(posts.listeners.read().unwrap().len(), 1);
    }

    #[test]
    fn a_listener_may_post_and_leave_while_it_is_called() {
        let posts = Posts::default();
        let (heard, place) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let (echo, noted, own) = (posts.clone(), Arc::clone(&heard), Arc::clone(&place));
        let listener = move |frame: Bytes| {
            noted.lock().unwrap().push(frame.clone());
            drop(own.lock().unwrap().take());
            echo.post(&Address::Cancels, &frame);
        };
        *place.lock().unwrap() = Some(posts.attach(&Address::Cancels, Arc::new(listener)));
        posts.post(&Address::Cancels, &Bytes::from_static(b"once"));
        assert_eq!(*heard.lock().unwrap(), ["once"]);
    }
}
