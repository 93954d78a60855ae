//! loop: one deed, such as the change of an object by compare-and-set: on record as an intent, done, on record with its outcome.
//!
//! The intent comes first, so that nothing is ever changed without a trace; a change whose intent cannot be written is
//! not made. The price is an entry for what then was not made, which says so.

use super::Office;
use super::audit::{Action, Author, Entry, Stage, topic};
use bytes::Bytes;
use serde_json::Value;
use shared::broker::{Broker, BrokerError, Bucket, Journal};
use shared::clock;
use shared::entropy;
use shared::error::{Code, Failure};
use shared::identity::Kind;

/// What is to be changed, and how.
pub(super) struct Change<'a> {
    pub(super) who: &'a Author,
    pub(super) action: Action,
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// The revision that is there; `None`: it must not be there.
    pub(super) revision: Option<u64>,
    /// For the record.
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
    /// What is stored; `None`: it is deleted.
    pub(super) value: Option<Bytes>,
}

impl Change<'_> {
    /// Makes it. Returns the new revision; zero for a deletion.
    ///
    /// # Errors
    /// `conflict`, `invalid_value` (too large), `broker_unavailable`: whether it was made is then unknown.
    pub(super) async fn make(self, office: &Office) -> Result<u64, Failure> {
        let broker = office.gate.broker();
        let Self { who, action, kind, name, .. } = self;
        let deed = Deed { who, action, kind: kind.as_str(), name, before: self.before.as_ref(), after: self.after.as_ref() };
        deed.done(broker, async { self.write(broker).await.map_err(|error| failure(&error)) }).await
    }

    async fn write(&self, broker: &dyn Broker) -> Result<u64, BrokerError> {
        let record = self.kind.record(self.name);
        match (self.revision, self.value.clone()) {
            (None, Some(value)) => broker.record_create(Bucket::Identity, &record, value).await,
            (Some(revision), Some(value)) => broker.record_update(Bucket::Identity, &record, value, revision).await,
            (revision, None) => broker.record_delete(Bucket::Identity, &record, revision.unwrap_or_default()).await.map(|()| 0),
        }
    }
}

/// What goes on record of something that is done.
pub(super) struct Deed<'a> {
    pub(super) who: &'a Author,
    pub(super) action: Action,
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) before: Option<&'a Value>,
    pub(super) after: Option<&'a Value>,
}

impl Deed<'_> {
    /// Does it, between its intent and its outcome.
    ///
    /// # Errors
    /// Those of `work`, and `broker_unavailable` when the intent cannot be written: then it is not done.
    pub(super) async fn done<T>(&self, broker: &dyn Broker, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let id = entropy::message_id();
        self.note(broker, &id, Stage::Intent).await.map_err(|error| unavailable(&error))?;
        let done = work.await;
        let stage = Stage::of(done.as_ref().err());
        if let Err(error) = self.note(broker, &id, stage).await {
            tracing::error!(%error, change = %id, ?stage, "the outcome of a change is not on record; its intent is");
        }
        done
    }

    async fn note(&self, broker: &dyn Broker, id: &str, stage: Stage) -> Result<(), BrokerError> {
        let is_intent = stage == Stage::Intent;
        let entry = Entry {
            change: id,
            stage,
            at_ms: u64::try_from(clock::unix().as_millis()).unwrap_or(u64::MAX),
            who: self.who,
            action: self.action,
            kind: self.kind,
            name: self.name,
            before: self.before.filter(|_| is_intent),
            after: self.after.filter(|_| is_intent),
        };
        let json = serde_json::to_vec(&entry).expect("entries are plain data");
        let message_id = format!("{id}-{stage:?}");
        broker.append(Journal::Audit, &topic(self.kind).into(), &message_id, json.into()).await.map(drop)
    }
}

fn failure(error: &BrokerError) -> Failure {
    match error {
        BrokerError::Conflict => conflict("Somebody else has changed this object in the meantime: read it again"),
        BrokerError::TooLarge => Failure::new(Code::InvalidValue, "This object is larger than can be kept: shorten its lists"),
        error => unavailable(error),
    }
}

pub(super) fn conflict(message: &str) -> Failure {
    Failure::new(Code::Conflict, message)
}

/// What is said of a store that did not answer.
pub(super) fn unavailable(error: &BrokerError) -> Failure {
    tracing::error!(%error, "the administration cannot reach the store");
    Failure::new(Code::BrokerUnavailable, "The store did not answer: look whether the change was made, and try again").retry_after_ms(1_000)
}
