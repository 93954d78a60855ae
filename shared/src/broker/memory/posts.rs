//! edge: unqueued messages between listeners of one process: a bounded channel each, lossy like core NATS.

use crate::broker::{Address, Inbox};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use tokio::sync::mpsc;

/// Frames that may wait for one listener. Past it the newest is dropped, as a NATS client does: what is already there
/// stays in order, and the receiver sees one gap at the end instead of many.
const WAITING_MAX: usize = 65_536;

/// A read-mostly map: listeners come and go with roles and processes, posts come with every message.
#[derive(Debug, Default)]
pub(super) struct Posts {
    listeners: RwLock<HashMap<Address, Vec<mpsc::Sender<Bytes>>>>,
}

impl Posts {
    pub(super) fn post(&self, to: &Address, frame: &Bytes) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.get(to).into_iter().flatten() {
            if let Err(mpsc::error::TrySendError::Full(_)) = listener.try_send(frame.clone()) {
                tracing::warn!(?to, "a frame was dropped: its listener is {WAITING_MAX} behind");
            }
        }
    }

    /// Opens an inbox, and forgets the listeners that are gone.
    pub(super) fn listen(&self, at: &Address) -> MemoryInbox {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|_, all| {
            all.retain(|listener| !listener.is_closed());
            !all.is_empty()
        });
        listeners.entry(at.clone()).or_default().push(sender);
        MemoryInbox { receiver }
    }
}

pub(super) struct MemoryInbox {
    receiver: mpsc::Receiver<Bytes>,
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

    #[tokio::test]
    async fn a_listener_that_fell_behind_loses_the_newest() {
        let posts = Posts::default();
        let mut inbox = posts.listen(&Address::Heartbeats);
        for n in 0..WAITING_MAX + 5 {
            posts.post(&Address::Heartbeats, &Bytes::from(n.to_string()));
        }
        drop(posts);
        let mut heard = Vec::new();
        while let Some(frame) = inbox.next().await {
            heard.push(frame);
        }
        assert_eq!(heard.len(), WAITING_MAX);
        assert_eq!(heard.last().unwrap(), &Bytes::from((WAITING_MAX - 1).to_string()));
    }

    #[tokio::test]
    async fn listeners_that_are_gone_are_forgotten() {
        let posts = Posts::default();
        for _ in 0..10 {
            drop(posts.listen(&Address::Cancels));
        }
        let _inbox = posts.listen(&Address::Heartbeats);
        assert_eq!(posts.listeners.read().unwrap().len(), 1);
    }
}
