//! edge: waits for a condition outside this process, with a deadline. Never for a time alone.

use loadtest::child::POLL;
use loadtest::clock::Stopwatch;
use std::time::Duration;

/// Looks again and again until `holds`; fails the test when it does not in time.
pub(crate) async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let began = Stopwatch::start();
    while !holds().await {
        assert!(began.elapsed() < within, "this did not come about within {within:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
