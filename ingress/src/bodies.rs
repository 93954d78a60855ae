//! core: how many bytes of request bodies may be in memory at once. A body's share is part of the body: where the last of
//! its bytes is dropped, there is room again.

use bytes::Bytes;
use prometheus::IntGauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Bodies {
    held: AtomicUsize,
    max: usize,
    gauge: IntGauge,
}

/// What one body takes up so far.
pub(crate) struct Share {
    bodies: Arc<Bodies>,
    bytes: usize,
}

/// All is taken.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes of bodies are in memory")]
pub(crate) struct NoRoom;

impl Bodies {
    /// `gauge` is kept at the number of bytes held.
    pub(crate) fn new(max: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max, gauge })
    }

    /// The share of a body of which nothing has come yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { bodies: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// Makes room for more of the body.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Bodies { held, max, gauge } = self.bodies.as_ref();
        let more = |now: usize| now.checked_add(bytes).filter(|more| more <= max);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| NoRoom)?;
        gauge.add(signed(bytes));
        self.bytes += bytes;
        Ok(())
    }

    /// The whole body, which holds its share until nobody has any of it.
    pub(crate) fn bind(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Bound { body, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bodies.gauge.sub(signed(self.bytes));
    }
}

struct Bound {
    body: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Bound {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_its_share_as_long_as_any_of_its_bytes_is_somewhere() {
        let bodies = Bodies::new(10, IntGauge::new("held", "x").unwrap());
        let mut share = bodies.share();
        share.grow(4).unwrap();
        share.grow(4).unwrap();
        let part = share.bind(Bytes::from_static(b"12345678")).slice(2..3);
        assert_eq!((&part[..], bodies.gauge.get()), (&b"3"[..], 8));
        let mut other = bodies.share();
        assert!(other.grow(3).is_err() && other.grow(2).is_ok());
        drop(part);
        assert!(other.grow(8).is_ok());
        drop(other);
        assert_eq!((bodies.held.load(Ordering::Relaxed), bodies.gauge.get()), (0, 0));
    }
}
