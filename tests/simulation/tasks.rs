//! core: what processes are about to do at the broker: futures that the world polls, one turn at a time, and that die with whoever
//! began them.

use crate::happening::Happening;
use futures::future::LocalBoxFuture;
use futures::task::noop_waker_ref;
use std::collections::BTreeMap;
use std::task::{Context, Poll};

/// One life of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    Ingress(usize),
    Scheduler(usize),
    Worker(usize),
}

#[derive(Default)]
pub(crate) struct Tasks {
    running: BTreeMap<u64, (Process, LocalBoxFuture<'static, Happening>)>,
    begun: u64,
}

impl Tasks {
    pub(crate) fn begin(&mut self, of: Process, future: LocalBoxFuture<'static, Happening>) -> u64 {
        self.begun += 1;
        self.running.insert(self.begun, (of, future));
        self.begun
    }

    /// Whose it is; nothing when it has ended.
    pub(crate) fn of(&self, task: u64) -> Option<Process> {
        self.running.get(&task).map(|(of, _)| *of)
    }

    pub(crate) fn turn(&mut self, task: u64) -> Poll<Happening> {
        let Some((_, future)) = self.running.get_mut(&task) else { return Poll::Pending };
        let turned = future.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
        if turned.is_ready() {
            self.running.remove(&task);
        }
        turned
    }

    pub(crate) fn die(&mut self, process: Process) {
        self.running.retain(|_, (of, _)| *of != process);
    }

    pub(crate) fn end(&mut self, task: u64) {
        self.running.remove(&task);
    }
}
