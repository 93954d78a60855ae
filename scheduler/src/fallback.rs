//! edge: sends a request that its model cannot serve on to the model's next fallback: into that one's lane, under its own id, so that
//! whoever waits for it hears the answer from there.
//!
//! Only who waits on the line is served by another model; what is deferred waits for its own.

use bytes::Bytes;
use shared::broker::{Address, Broker, LaneSubject, Stored};
use shared::config::Model;
use shared::domain::{Lane, Token};
use shared::entropy;
use shared::error::Failure;
use shared::outbox::Outbox;
use shared::task::{self, Guarded};
use shared::wire::{Envelope, Moved, Reply, ToIngress, encode_one};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Requests that may wait to be sent on: past it they fail as they would without a fallback.
const WAITING_MAX: usize = 1_024;

/// A request on its way to another model.
#[derive(Debug)]
pub(crate) struct Onward {
    /// As it is there.
    pub(crate) envelope: Envelope,
    pub(crate) body: Bytes,
    /// What its caller is told if it cannot be sent.
    pub(crate) failure: Failure,
}

/// The model that is asked next, if there is one that can take the request.
pub(crate) fn next<'a>(models: &'a [Model], envelope: &Envelope) -> Option<&'a Model> {
    let of = |name: &str| models.iter().find(|model| model.name == name);
    let chain = &of(envelope.asked.as_deref().unwrap_or(&envelope.model))?.fallbacks;
    let tried = match &envelope.asked {
        Some(_) => chain.iter().position(|name| **name == *envelope.model)? + 1,
        None => 0,
    };
    let tokens = envelope.tokens_in.saturating_add(envelope.tokens_out);
    let fits = |model: &&Model| model.context_tokens.is_none_or(|context| tokens <= context);
    chain[tried..].iter().filter_map(|name| of(name)).find(fits)
}

#[derive(Clone, Debug)]
pub(crate) struct Forwarder {
    onward: mpsc::Sender<Onward>,
    _task: Arc<Guarded>,
}

impl Forwarder {
    pub(crate) fn start(broker: Arc<dyn Broker>, outbox: Outbox) -> Self {
        let (onward, waiting) = mpsc::channel(WAITING_MAX);
        Self { onward, _task: Arc::new(task::spawn_guarded("fallbacks", run(broker, outbox, waiting))) }
    }

    /// False: too many wait.
    pub(crate) fn send(&self, onward: Onward) -> bool {
        self.onward.try_send(onward).is_ok()
    }
}

async fn run(broker: Arc<dyn Broker>, outbox: Outbox, mut waiting: mpsc::Receiver<Onward>) {
    while let Some(Onward { envelope, body, failure }) = waiting.recv().await {
        let model = Token::of_model(&envelope.model);
        let to = LaneSubject { lane: Lane::Interactive, model, part: 0, origin: envelope.ingress.clone() };
        let (frame, id) = (encode_one(&envelope, &body), envelope.id);
        let told = match broker.publish(&to, &entropy::message_id(), frame).await {
            Ok(Stored { epoch, sequence, .. }) => ToIngress::Moved(Moved { id, model: to.model, epoch, sequence }),
            Err(error) => {
                tracing::warn!(%error, model = %envelope.model, "a request could not be sent on to a fallback");
                let failure = Some(Box::new(failure));
                ToIngress::Reply(Reply { id, exec: None, part: 0, last: true, head: None, failure, usage: None })
            }
        };
        outbox.post(Address::Ingress(envelope.ingress), &told, Bytes::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config;
    use shared::domain::{NodeId, Operation};
    use shared::wire::Encoding;

    fn models() -> Vec<Model> {
        let yaml = "
models:
  - { name: a, kind: sequence, fallbacks: [b, c, d], backends: [{ kind: sandbox }] }
  - { name: b, kind: sequence, fallbacks: [a], context_tokens: 10, backends: [{ kind: sandbox }] }
  - { name: c, kind: sequence, context_tokens: 1000, backends: [{ kind: sandbox }] }
  - { name: d, kind: sequence, backends: [{ kind: sandbox }] }
";
        config::parse(yaml, "f").unwrap().models
    }

    fn next_of(model: &str, asked: Option<&str>, tokens_in: u32) -> Option<String> {
        next(&models(), &envelope(model, asked, tokens_in)).map(|model| model.name.clone())
    }

    fn envelope(model: &str, asked: Option<&str>, tokens_in: u32) -> Envelope {
        Envelope {
            id: entropy::request_id(),
            tenant: "t".into(),
            key: None,
            model: model.into(),
            lane: Lane::Interactive,
            op: Operation::Chat,
            remaining_ms: 1_000,
            tokens_in,
            tokens_out: 5,
            items: 1,
            longest: 0,
            bytes: 2,
            compat: 0,
            ingress: NodeId::parse("i").unwrap(),
            stream: false,
            encoding: Encoding::Float,
            model_at: None,
            params: "".into(),
            traceparent: None,
            claim: None,
            asked: asked.map(Into::into),
            job: None,
        }
    }

    #[test]
    fn the_chain_is_that_of_the_model_that_was_asked_for() {
        assert_eq!(next_of("a", None, 1), Some("b".into()));
        assert_eq!(next_of("b", Some("a"), 1), Some("c".into()), "and not back to a, which b would fall to");
        assert_eq!(next_of("d", Some("a"), 1), None);
        assert_eq!(next_of("c", None, 1), None);
    }

    #[test]
    fn a_model_whose_context_is_too_short_is_passed_over() {
        assert_eq!(next_of("a", None, 6), Some("c".into()));
        assert_eq!(next_of("a", None, 5_000), Some("d".into()));
    }
}
