//! core: how much of each lane an owner holds. Each has a window of its own, so that what waits in one keeps nobody out of
//! another.

use shared::domain::Lane;
use shared::wire::{COALESCE_MAX, FRAME_BYTES_MAX};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Frames asked for at once: more would only wait here instead of there.
const FRAMES_MAX: usize = 256;

/// What a window holds at most, and a frame of its lane.
#[derive(Clone, Copy, Debug)]
struct Size {
    requests: usize,
    bytes: usize,
    requests_of_frame: usize,
}

/// Requests of one chunk of a batch.
const CHUNK: usize = 256;

const fn size(lane: Lane) -> Size {
    match lane {
        // Several tenants' full allowance at an ingress, so that fair share sees them all.
        Lane::Interactive => Size { requests: 8_192, bytes: 64 << 20, requests_of_frame: COALESCE_MAX },
        // Fair share sees some tenants' work; the rest waits in the lane, where it is durable.
        Lane::Async => Size { requests: 2_048, bytes: 32 << 20, requests_of_frame: COALESCE_MAX },
        // The chunks of a dozen jobs, and several calls of the largest backends.
        Lane::Bulk => Size { requests: 4_096, bytes: 32 << 20, requests_of_frame: CHUNK },
    }
}

/// The room that is left for frames of one lane.
#[derive(Debug)]
pub(crate) struct Window {
    size: Size,
    frames: AtomicUsize,
    /// Frames of the lane that no reader has had, as far as is known.
    left: AtomicU64,
    grew: Notify,
}

impl Window {
    pub(crate) fn new(lane: Lane) -> Self {
        let window = Self { size: size(lane), frames: AtomicUsize::new(0), left: AtomicU64::new(0), grew: Notify::new() };
        window.holds(0, 0);
        window
    }

    /// So much of the lane is held now.
    pub(crate) fn holds(&self, requests: usize, bytes: usize) {
        let by_requests = self.size.requests.saturating_sub(requests) / self.size.requests_of_frame;
        let by_bytes = self.size.bytes.saturating_sub(bytes) / FRAME_BYTES_MAX;
        let frames = by_requests.min(by_bytes).min(FRAMES_MAX);
        if self.frames.swap(frames, Ordering::Relaxed) == 0 && frames > 0 {
            self.grew.notify_waiters();
        }
    }

    /// Frames were read that are not yet counted as held.
    pub(crate) fn read(&self, frames: usize) {
        let less = |room: usize| Some(room.saturating_sub(frames));
        let _ = self.frames.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less); // It never refuses.
    }

    /// So many frames are left in the lane.
    pub(crate) fn leaves(&self, frames: u64) {
        self.left.store(frames, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Waits until there is room: frames that fit even if each is full.
    pub(crate) async fn frames(&self) -> usize {
        loop {
            let grew = self.grew.notified();
            let frames = self.frames.load(Ordering::Relaxed);
            if frames > 0 {
                return frames;
            }
            grew.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn frames(window: &Window) -> Option<usize> {
        window.frames().now_or_never()
    }

    #[test]
    fn a_frame_is_asked_for_only_where_a_full_one_fits() {
        let bulk = Window::new(Lane::Bulk);
        assert_eq!(frames(&bulk), Some(16));
        bulk.holds(4_096 - 256, 0);
        assert_eq!(frames(&bulk), Some(1));
        bulk.holds(4_096 - 255, 0);
        assert_eq!(frames(&bulk), None);
        bulk.holds(0, (32 << 20) - FRAME_BYTES_MAX + 1);
        assert_eq!(frames(&bulk), None);
    }

    #[test]
    fn what_was_read_counts_before_it_is_held() {
        let bulk = Window::new(Lane::Bulk);
        bulk.read(10);
        assert_eq!(frames(&bulk), Some(6));
        bulk.read(10);
        assert_eq!(frames(&bulk), None);
    }

    #[tokio::test]
    async fn a_reader_goes_on_when_there_is_room_again() {
        let window = Window::new(Lane::Interactive);
        window.holds(8_192, 0);
        let (frames, ()) = tokio::join!(window.frames(), async { window.holds(8_000, 0) });
        assert_eq!(frames, 3);
    }
}
