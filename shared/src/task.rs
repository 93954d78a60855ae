//! edge: the only spawner of tasks, so that every task has a name in the log when it dies.

use std::future::Future;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// Spawns a task whose panic is logged under `name` instead of vanishing with its handle.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    tokio::spawn(async move {
        #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
        let inner = tokio::spawn(work.in_current_span());
        let guard = AbortOnDrop(inner.abort_handle());
        let ended = inner.await;
        drop(guard);
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(task = name, "a task panicked: this is a defect, please report it");
        }
    })
}

/// Aborts the task when dropped: a guard for work that must not outlive its owner.
#[derive(Debug)]
pub struct AbortOnDrop(pub tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A spawned task that ends with this guard.
#[derive(Debug)]
pub struct Guarded(JoinHandle<()>);

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
