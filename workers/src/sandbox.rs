//! edge: a model backend for trials and tests: deterministic answers that betray cross-talk, with a latency and a fault model.
//!
//! **What answers carry.** Every generation ends in the word `sandbox:<tag>`, and its id is `chatcmpl-<tag>`,
//! `cmpl-<tag>` or `resp_<tag>`; the tag is FNV-1a 64 over `hash_key`, a zero byte and the canonical prompt (UTF-8), as 16 hex digits. The
//! canonical prompt of a chat is the text of all messages in order (a `content` string, or the `text` of each of its
//! parts), joined by LF; of a response the same of `instructions` and `input`; of a completion it is the prompt; of several prompts, the prompts joined by LF; of token ids, the
//! ids in decimal joined by spaces. Embeddings are functions of the one input (`sandbox/vector.rs`).
//!
//! **How it fails.** As `[[fault:NAME]]` or `[[fault:status=503]]` in a prompt says, in any input of an array call for the
//! whole of it, or by rates: the configured ones, or those put to `/faults`. `[[delay:MS]]` adds latency.
//!
//! **A real model.** Built with the feature `local`, it makes embeddings with one ([`Source::model`]); all else stays.
//!
//! The same sandbox serves calls within this process ([`Sandbox::call`]) and over HTTP ([`serve`]).

mod accelerator;
mod embedding;
mod fault;
mod generation;
mod hash;
mod reply;
mod request;
mod server;
mod source;
mod stats;
mod trouble;
mod vector;

pub use reply::{Body, Reply};
pub use server::{Server, serve};
pub use source::{Source, SourceError};
pub use stats::Snapshot;

use accelerator::{Accelerator, Seat};
use embedding::Embedding;
use generation::Generation;
use hash::Fnv;
use request::{Prompted, Rejected};
use shared::clock;
use shared::config::{Fault, FaultRate, SandboxConfig};
use shared::domain::Operation;
use stats::{Running, Stats};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trouble::Trouble;

/// One simulated backend. Its callers share one accelerator and one count of what arrived.
pub struct Sandbox {
    config: SandboxConfig,
    /// The rates in force: the configured ones until others are set.
    faults: Mutex<Vec<FaultRate>>,
    key: Fnv,
    source: Source,
    accelerator: Accelerator,
    stats: Arc<Stats>,
    /// Numbers the calls, so that faults by rate are the same in every run.
    draws: AtomicU64,
}

impl Sandbox {
    pub fn new(config: SandboxConfig) -> Arc<Self> {
        Self::with_source(config, Source::Hash)
    }

    /// Whose vectors come from there.
    pub fn with_source(mut config: SandboxConfig, source: Source) -> Arc<Self> {
        config.dimensions = source.dimensions().unwrap_or(config.dimensions);
        let key = Fnv::keyed(config.hash_key.as_bytes());
        let accelerator = Accelerator::new(config.concurrency);
        let faults = Mutex::new(config.faults.clone());
        Arc::new(Self { config, faults, key, source, accelerator, stats: Arc::default(), draws: AtomicU64::new(0) })
    }

    /// What has arrived since the start or the last reset.
    pub fn stats(&self) -> Snapshot {
        self.stats.snapshot()
    }

    pub fn reset_stats(&self) {
        self.stats.reset();
    }

    /// From now on calls fail at these rates.
    pub fn set_faults(&self, rates: Vec<FaultRate>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// Answers one call: at once when it is refused, else when the simulated accelerator has done its work; a stream, when
    /// it begins. Dropping the future, or the reply's body, counts as a caller that left and frees the accelerator.
    pub async fn call(&self, op: Operation, body: &[u8]) -> Reply {
        let answered = match op {
            Operation::Chat => self.generate(Prompted::chat(body)).await,
            Operation::Completions => self.generate(Prompted::completion(body)).await,
            Operation::Responses => self.generate(Prompted::response(body)).await,
            Operation::Embeddings => self.embed(Embedding::parse(body, self.config.dimensions)).await,
        };
        answered.unwrap_or_else(|rejected| Reply::rejection(&rejected))
    }

    async fn embed(&self, parsed: Result<Embedding, Rejected>) -> Result<Reply, Rejected> {
        let call = parsed?;
        let running = self.stats.embeddings(call.tags(self.key));
        let trouble = self.trouble(call.trouble);
        if let Some(Fault::Status(status)) = trouble.fault {
            return Ok(Reply::failure(status, running));
        }
        let mut seat = self.seat(trouble.fault).await;
        seat.work_exactly(self.cost(&call) + trouble.delay).await;
        let Some(vectors) = self.source.vectors(&call, self.key, seat).await? else {
            running.finish();
            return Ok(Reply::error(500, "the model failed; the sandbox's log says why", "server_error"));
        };
        let missing = usize::from(trouble.fault == Some(Fault::WrongCount));
        Ok(fault::whole(trouble.fault, call.answer(&vectors, missing), running))
    }

    /// What a call takes the accelerator: a fixed part, a part for each input, and one for each token after padding.
    #[expect(clippy::cast_precision_loss, reason = "counts of inputs and tokens")]
    fn cost(&self, call: &Embedding) -> Duration {
        let SandboxConfig { a_ms, b_ms, padded_token_ms, .. } = self.config;
        let inputs = call.inputs.len();
        span(a_ms + b_ms * inputs as f64 + padded_token_ms * (inputs * call.longest()) as f64)
    }

    async fn generate(&self, parsed: Result<Prompted, Rejected>) -> Result<Reply, Rejected> {
        let call = parsed?;
        let tag = self.key.bytes(call.prompt.as_bytes()).finish();
        let running = self.stats.generation(tag);
        let trouble = self.trouble(call.trouble);
        if let Some(Fault::Status(status)) = trouble.fault {
            return Ok(Reply::failure(status, running));
        }
        let seat = self.seat(trouble.fault).await;
        let first = span(self.config.first_token_ms) + trouble.delay;
        let generation = Generation::new(call, tag, first, span(self.config.token_ms));
        Ok(answer(generation, trouble.fault, seat, running).await)
    }

    /// What goes wrong with this call: what its prompt says, else what the rates draw.
    fn trouble(&self, told: Trouble) -> Trouble {
        let call = self.draws.fetch_add(1, Ordering::Relaxed);
        let drawn = || fault::draw(&self.faults.lock().unwrap_or_else(PoisonError::into_inner), self.key, call);
        Trouble { fault: told.fault.or_else(drawn), ..told }
    }

    /// A seat at the accelerator. A call that hangs takes one and keeps it until its caller leaves.
    async fn seat(&self, fault: Option<Fault>) -> Seat {
        let mut seat = self.accelerator.seat(clock::now()).await;
        if fault == Some(Fault::Hang) {
            seat.hang().await;
        }
        seat
    }
}

async fn answer(generation: Generation, fault: Option<Fault>, mut seat: Seat, running: Running) -> Reply {
    if generation.is_stream() {
        return fault::stream(fault, generation, seat, running);
    }
    seat.work_until(generation.duration()).await;
    drop(seat);
    fault::whole(fault, generation.whole(), running)
}

/// Milliseconds of the configuration, which are finite and not negative.
fn span(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1_000.0)
}
