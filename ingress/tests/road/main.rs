//! The ingress over the in-process broker, with the test in the place of scheduler and worker.

mod answers;
mod dead_letters;
mod harness;
mod hostile;
mod lifecycle;
mod limits;
mod recovery;
mod refusals;
mod webhooks;
