//! edge: the only spawner of tasks, so that every task has a name in the log when it dies.

use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use tokio::task::JoinHandle;

/// Spawns a task whose panic is logged under `name` instead of vanishing with its handle.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    // Combinators rather than an `async` block, which would hold the work twice: as captured, and as awaited.
    let watched = AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            tracing::error!(task = name, "a task panicked: this is a defect, please report it");
        }
    });
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    tokio::spawn(watched)
}

/// A spawned task that ends with this guard.
#[derive(Debug)]
pub struct Guarded(JoinHandle<()>);

impl Guarded {
    /// Whether its work is done.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Spawns a task that is aborted when the returned guard is dropped.
pub fn spawn_guarded<F>(name: &'static str, work: F) -> Guarded
where
    F: Future<Output = ()> + Send + 'static,
{
    Guarded(spawn(name, work))
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}
