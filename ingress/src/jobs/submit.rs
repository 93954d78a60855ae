//! edge: a request becomes a job: on record, then in its lane. What is on record is never lost; what is not in its lane is put
//! there by the sweeper.

use crate::claim::CLAIM_OVER;
use crate::compose::Composed;
use crate::gate::Gate;
use crate::idempotency;
use crate::native;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use shared::broker::{Broker, BrokerError, Feed, Journal, LaneSubject, Since, Store};
use shared::clock;
use shared::domain::{Lane, Operation, RequestId, Token};
use shared::entropy;
use shared::error::Failure;
use shared::jobs::{self, Created, Job, Place, State, StoreError};
use shared::wire::{Claim, Envelope, JobRef, decode, encode_one};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How a caller wants a request to be run, other than here and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errand {
    /// Under which name: the same name is the same job.
    pub(crate) name: Option<Box<str>>,
    pub(crate) returns: Returns,
}

/// What a caller gets for it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Returns {
    /// The answer: they wait for it.
    #[default]
    Answer,
    Job,
    /// A background response, which is a job in OpenAI's shape.
    Response,
}

impl Returns {
    /// How the ids of such jobs begin.
    const fn prefix(self) -> &'static str {
        if matches!(self, Self::Response) { Job::RESPONSE } else { "job_" }
    }
}

impl Errand {
    /// What the headers say; `None`: nothing of that sort.
    ///
    /// # Errors
    /// `invalid_header`.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let name = idempotency::name(headers)?;
        let asks = |value: &http::HeaderValue| {
            value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim().eq_ignore_ascii_case("respond-async")))
        };
        let returns = if headers.get_all(PREFER).iter().any(asks) { Returns::Job } else { Returns::Answer };
        Ok((returns != Returns::Answer || name.is_some()).then_some(Self { name, returns }))
    }

    /// The errand of a background response, whatever the headers say.
    pub(crate) fn in_background(read: Option<Self>) -> Self {
        Self { returns: Returns::Response, ..read.unwrap_or_default() }
    }
}

/// What two requests under one name must have in common.
pub(crate) fn fingerprint(op: Operation, body: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(op.path().as_bytes()).update(&[0]).update(body);
    hasher.finalize().as_bytes().to_vec()
}

/// The id of a job's request.
pub fn request_id(job: &Token) -> RequestId {
    let hex = job.as_str().rsplit('_').next().unwrap_or_default();
    RequestId(
        Uuid::try_parse(hex).unwrap_or_else(|_| Uuid::new_v8(*blake3::hash(hex.as_bytes()).as_bytes().first_chunk().expect("32 bytes"))),
    )
}

/// Puts a request on record and into its lane, or finds the job that has its name. `within`: until when it must have ended.
///
/// # Errors
/// `idempotency_mismatch`, `queue_full`, `broker_unavailable`.
pub(crate) async fn submit(
    gate: &Gate,
    composed: Composed,
    errand: &Errand,
    fingerprint: Vec<u8>,
    within: Duration,
) -> Result<Job, Failure> {
    let Composed { model, envelope, body, background, .. } = composed;
    let id = idempotency::id(errand.returns.prefix(), &envelope.tenant, errand.name.as_deref());
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let (metadata, notified) = (background.unwrap_or_default(), !gate.webhooks.concern(&envelope.tenant));
    let job = Job { metadata, notified, ..fresh(id.clone(), &envelope, fingerprint, within_ms) };
    let is_large = body.len() > CLAIM_OVER;
    let accepted = accept(gate.broker(), job, &model, addressed(envelope, id.clone(), within_ms), body).await;
    // Without a name nobody submits it again, and its body is nobody's. With one the next submission needs it or replaces it.
    if accepted.is_err()
        && is_large
        && errand.name.is_none()
        && let Err(error) = gate.broker().blob_delete(Store::Files, &jobs::body_key(&id)).await
    {
        tracing::warn!(%error, job = %id, "the body of a job that was not taken is left behind");
    }
    accepted
}

/// A job that is about to be accepted, and has `within_ms` from now on.
fn fresh(id: Token, envelope: &Envelope, fingerprint: Vec<u8>, within_ms: u64) -> Job {
    let now_ms = clock::unix_ms();
    Job {
        id,
        tenant: envelope.tenant.clone(),
        model: envelope.model.clone(),
        op: envelope.op,
        stream: envelope.stream,
        state: State::Accepted,
        attempts: 0,
        created_ms: now_ms,
        started_ms: None,
        ended_ms: None,
        deadline_ms: now_ms.saturating_add(within_ms),
        fingerprint,
        place: None,
        exec: None,
        winner: None,
        failure: None,
        usage: None,
        notified: false,
        redrive_of: None,
        metadata: BTreeMap::new(),
    }
}

/// Submits the request of a job that has ended again, as another job, which has as much time as the first had.
///
/// # Errors
/// `queue_full`, `broker_unavailable`.
pub(super) async fn again(gate: &Gate, ended: &Job, envelope: Envelope, body: Bytes) -> Result<Job, Failure> {
    let prefix = if ended.is_response() { Returns::Response.prefix() } else { Returns::Job.prefix() };
    let id = idempotency::id(prefix, &ended.tenant, Some(&format!("redrive of {}", ended.id))); // No caller's name has a space.
    let within_ms = ended.deadline_ms.saturating_sub(ended.created_ms);
    let (redrive_of, metadata, notified) = (Some(ended.id.clone()), ended.metadata.clone(), !gate.webhooks.concern(&ended.tenant));
    let job = Job { redrive_of, metadata, notified, ..fresh(id.clone(), &envelope, ended.fingerprint.clone(), within_ms) };
    let model = Token::of_model(&envelope.model);
    accept(gate.broker(), job, &model, addressed(envelope, id, within_ms), body).await
}

/// An envelope as the lane of jobs carries it.
pub fn addressed(envelope: Envelope, id: Token, within_ms: u64) -> Envelope {
    Envelope {
        id: request_id(&id),
        lane: Lane::Async,
        remaining_ms: u32::try_from(within_ms).unwrap_or(u32::MAX),
        job: Some(Box::new(JobRef { job: id, part: 0, row: 0, line: false, again: false })),
        ..envelope
    }
}

/// What a job asked, as long as it is kept: a large body by its claim.
pub(super) async fn input(broker: &dyn Broker, job: &Token) -> Result<Option<(Envelope, Bytes)>, BrokerError> {
    let mut input = broker.follow(&Feed::Journal(Journal::Results, Some(jobs::input_topic(job))), Since::Start).await?;
    let frame = input.next(Duration::ZERO).await?.and_then(|entry| entry.value);
    let part = frame.and_then(|frame| decode(&frame).ok()?.into_iter().next());
    Ok(part.and_then(|part| Some((part.decode().ok()?, part.body))))
}

/// Puts a job on record and into its lane, or finds the one that is there under its id.
///
/// # Errors
/// `idempotency_mismatch`, `queue_full`, `broker_unavailable`.
pub async fn accept(broker: &dyn Broker, job: Job, model: &Token, envelope: Envelope, body: Bytes) -> Result<Job, Failure> {
    let new = match jobs::create(broker, &job).await.map_err(|error| native::of_store(&error))? {
        Created::New { revision } => Some(revision),
        Created::Known(known) if known.value.fingerprint != job.fingerprint => return Err(idempotency::mismatch()),
        Created::Known(known) if known.value.state != State::Accepted => return Ok(known.value),
        // Whoever submitted it has not come to the end of that, and may be dead: what they did can be done again.
        Created::Known(_) => None,
    };
    let input = keep(broker, &job, envelope, body).await;
    let laid_down = match &input {
        Ok((_, frame)) => broker.publish(&subject(&job.tenant, model), job.id.as_str(), frame.clone()).await,
        Err(error) => Err(error.clone()),
    };
    match laid_down {
        Ok(stored) => {
            let place = Place { lane: Lane::Async, epoch: stored.epoch, sequence: stored.sequence };
            let queued = jobs::change(broker, &job.tenant, &job.id, |job: &mut Job| job.queued(place)).await;
            match queued {
                Ok(stored) => Ok(stored.value),
                // Whoever put it on record could not lay it down, and took it back.
                Err(StoreError::NotFound) => Err(crate::refusal::of_broker(&BrokerError::Full)),
                Err(_) => Ok(job), // It is not known now: the sweeper asks.
            }
        }
        Err(error) => {
            if let Some(revision) = new {
                discard(broker, &job, revision, input.ok().map(|(position, _)| position)).await;
            }
            Err(crate::refusal::of_broker(&error))
        }
    }
}

/// Keeps a job's request as long as the job. Returns its position, and the frame that its lane is to carry.
async fn keep(broker: &dyn Broker, job: &Job, mut envelope: Envelope, body: Bytes) -> Result<(u64, Bytes), BrokerError> {
    let body = check_claim(broker, &mut envelope, body).await?;
    let frame = encode_one(&envelope, &body);
    let position = broker.append(Journal::Results, &jobs::input_topic(&job.id), &entropy::message_id(), frame.clone()).await?;
    Ok((position, frame))
}

/// The lane of a tenant's jobs.
pub(super) fn subject(tenant: &str, model: &Token) -> LaneSubject {
    LaneSubject { lane: Lane::Async, model: model.clone(), part: 0, origin: Token::of_name(tenant) }
}

/// Takes a job back that did not get into its lane, unless another who submitted it has come further. Its request is at `input`.
async fn discard(broker: &dyn Broker, job: &Job, revision: u64, input: Option<u64>) {
    let discarded = async {
        jobs::delete_at::<Job>(broker, &job.tenant, &job.id, revision).await?;
        erase_input(broker, &job.id, input).await
    };
    if let Err(error) = discarded.await {
        tracing::warn!(%error, job = %job.id, "a job that was not taken may run all the same");
    }
}

/// Removes a submission's request. What comes later under its name is another's.
async fn erase_input(broker: &dyn Broker, job: &Token, input: Option<u64>) -> Result<(), BrokerError> {
    match input {
        Some(_) => broker.erase(Journal::Results, &jobs::input_topic(job), input).await,
        None => Ok(()),
    }
}

/// Leaves a large body in the store of files, where it stays as long as its job.
async fn check_claim(broker: &dyn Broker, envelope: &mut Envelope, body: Bytes) -> Result<Bytes, BrokerError> {
    if body.len() <= CLAIM_OVER {
        return Ok(body);
    }
    let key = jobs::body_key(&envelope.job.as_ref().expect("a job's envelope says which").job);
    let hash = blake3::hash(&body).as_bytes().to_vec();
    broker.blob_put(Store::Files, &key, body).await?;
    envelope.claim = Some(Claim { key: key.into(), hash, kept: true });
    Ok(Bytes::new())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;
    use shared::broker::memory::MemoryBroker;
    use shared::error::Code;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn an_errand_is_asked_for_by_either_header() {
        let read = |pairs: &[_]| Errand::read(&headers(pairs));
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("prefer", "wait=10, Respond-Async")]).unwrap(), Some(Errand { name: None, returns: Returns::Job }));
        assert_eq!(read(&[("prefer", "return=minimal")]).unwrap(), None);
        assert_eq!(read(&[("idempotency-key", "a-1")]).unwrap(), Some(Errand { name: Some("a-1".into()), returns: Returns::Answer }));
        assert!(read(&[("idempotency-key", "a b")]).is_err());
    }

    #[test]
    fn a_job_has_one_request() {
        let of = |name| request_id(&idempotency::id("job_", "a", Some(name)));
        assert_eq!(of("x"), of("x"));
        assert_ne!(of("x"), of("y"));
    }

    pub(in crate::jobs) fn request(id: &Token) -> (Job, Envelope) {
        let envelope = json!({
            "id": Uuid::nil(), "tenant": "t", "model": "m", "lane": "a", "op": "chat", "remaining_ms": 1, "tokens_in": 1, "tokens_out": 1,
            "items": 1, "bytes": 2, "compat": 0, "ingress": "i",
        });
        let envelope = addressed(serde_json::from_value(envelope).unwrap(), id.clone(), 1_000);
        (fresh(id.clone(), &envelope, vec![7], 1_000), envelope)
    }

    #[tokio::test]
    async fn a_submission_that_broke_off_is_ended_by_the_next_under_its_name() {
        let (broker, id) = (MemoryBroker::new(), Token::parse("job_1").unwrap());
        let (job, envelope) = request(&id);
        jobs::create(broker.as_ref(), &job).await.unwrap(); // And its ingress dies.
        let body = Bytes::from_static(b"{}");
        let taken = accept(broker.as_ref(), job.clone(), &Token::of_model("m"), envelope.clone(), body.clone()).await.unwrap();
        assert_eq!(taken.state, State::Queued);
        assert_eq!(input(broker.as_ref(), &id).await.unwrap(), Some((envelope.clone(), body.clone())));
        let known = accept(broker.as_ref(), job, &Token::of_model("m"), envelope, body).await.unwrap();
        assert_eq!(known, taken, "it is in its lane once");
        assert_eq!(broker.stored(Lane::Async), 1);
    }

    #[tokio::test]
    async fn a_submitter_who_fails_leaves_what_another_has_laid_down() {
        let (broker, id) = (MemoryBroker::new(), Token::parse("job_1").unwrap());
        let (job, envelope) = request(&id);
        let Ok(Created::New { revision }) = jobs::create(broker.as_ref(), &job).await else { panic!("it is new") };
        let taken = accept(broker.as_ref(), job.clone(), &Token::of_model("m"), envelope, Bytes::from_static(b"{}")).await.unwrap();
        discard(broker.as_ref(), &job, revision, Some(u64::MAX)).await;
        assert_eq!(jobs::get::<Job>(broker.as_ref(), "t", &id).await.unwrap().unwrap().value, taken);
        assert!(input(broker.as_ref(), &id).await.unwrap().is_some());
        jobs::delete::<Job>(broker.as_ref(), "t", &id).await.unwrap();
        let Ok(Created::New { revision }) = jobs::create(broker.as_ref(), &job).await else { panic!("it is new") };
        discard(broker.as_ref(), &job, revision, None).await;
        assert_eq!(jobs::get::<Job>(broker.as_ref(), "t", &id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_taken_back_takes_nothing_of_who_submits_it_next_with_it() {
        let (broker, id) = (MemoryBroker::new(), Token::parse("job_1").unwrap());
        let (job, envelope) = request(&id);
        let Ok(Created::New { revision }) = jobs::create(broker.as_ref(), &job).await else { panic!("it is new") };
        let large = Bytes::from(vec![1; CLAIM_OVER + 1]);
        let (position, _) = keep(broker.as_ref(), &job, envelope.clone(), large.clone()).await.unwrap();
        // It is taken back. Between the record and the rest, another submits it.
        jobs::delete_at::<Job>(broker.as_ref(), "t", &id, revision).await.unwrap();
        accept(broker.as_ref(), job, &Token::of_model("m"), envelope, large.clone()).await.unwrap();
        erase_input(broker.as_ref(), &id, Some(position)).await.unwrap();
        assert!(broker.blob_get(Store::Files, &jobs::body_key(&id)).await.unwrap() == Some(large));
        assert!(input(broker.as_ref(), &id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn another_request_under_a_name_leaves_the_first_ones_body_alone() {
        let (broker, id) = (MemoryBroker::new(), Token::parse("job_1").unwrap());
        let (job, envelope) = request(&id);
        let (first, second) = (Bytes::from(vec![1; CLAIM_OVER + 1]), Bytes::from(vec![2; CLAIM_OVER + 1]));
        accept(broker.as_ref(), job.clone(), &Token::of_model("m"), envelope.clone(), first.clone()).await.unwrap();
        let other = Job { fingerprint: vec![8], ..job };
        let refused = accept(broker.as_ref(), other, &Token::of_model("m"), envelope, second).await.unwrap_err();
        assert_eq!(refused.code, Code::IdempotencyMismatch);
        assert!(broker.blob_get(Store::Files, &jobs::body_key(&id)).await.unwrap() == Some(first));
    }
}
