//! edge: ports for servers that are killed and started again on the same one.
//!
//! They are taken below those that the kernel gives to connections: while the server is down nobody else may get its port.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below 32768, where Linux begins to give ports to connections.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that is free now, and is not given out again.
pub(crate) fn free() -> u16 {
    let span = RANGE.end - RANGE.start;
    // Test processes that run at once begin at different places.
    let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).expect("within the range");
    let mut ports = (0..span).map(|_| RANGE.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % span);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
