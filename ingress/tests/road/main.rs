//! The ingress over the in-process broker, with the test in the place of scheduler and worker.

mod answers;
mod harness;
mod hostile;
mod lifecycle;
mod limits;
mod recovery;
mod refusals;
