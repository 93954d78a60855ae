//! loop: one change of one object: on record as an intent, made by compare-and-set, on record with its outcome.
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
        let broker = office.gate.road.broker.as_ref();
        let id = entropy::message_id();
        self.note(broker, &id, Stage::Intent).await.map_err(|error| unavailable(&error))?;
        let written = self.write(broker).await;
        let stage = match &written {
            Ok(_) => Stage::Made,
            Err(BrokerError::Conflict | BrokerError::TooLarge) => Stage::Refused,
            Err(_) => Stage::Unknown,
        };
        if let Err(error) = self.note(broker, &id, stage).await {
            tracing::error!(%error, change = %id, ?stage, "the outcome of a change is not on record; its intent is");
        }
        written.map_err(|error| failure(&error))
    }

    async fn write(&self, broker: &dyn Broker) -> Result<u64, BrokerError> {
        let record = self.kind.record(self.name);
        match (self.revision, self.value.clone()) {
            (None, Some(value)) => broker.record_create(Bucket::Identity, &record, value).await,
            (Some(revision), Some(value)) => broker.record_update(Bucket::Identity, &record, value, revision).await,
            (revision, None) => broker.record_delete(Bucket::Identity, &record, revision.unwrap_or_default()).await.map(|()| 0),
        }
    }

    async fn note(&self, broker: &dyn Broker, id: &str, stage: Stage) -> Result<(), BrokerError> {
        let states = (stage == Stage::Intent).then_some((&self.before, &self.after));
        let entry = Entry {
            change: id,
            stage,
            at_ms: u64::try_from(clock::unix().as_millis()).unwrap_or(u64::MAX),
            who: self.who,
            action: self.action,
            kind: self.kind.as_str(),
            name: self.name,
            before: states.and_then(|(before, _)| before.as_ref()),
            after: states.and_then(|(_, after)| after.as_ref()),
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
