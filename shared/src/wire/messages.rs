//! core: the messages between the roles. Which of them may be lost, and what then, is in `docs/ARCHITECTURE.md`.

use super::Fault;
use super::envelope::is_zero;
use crate::domain::{BatchId, ExecId, Lane, NodeId, RequestId, Token};
use crate::error::Failure;
use crate::quota::{Look, Refusal, Standing};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// To a worker's inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The part's body is the concatenation of the items' bodies.
    #[serde(rename = "dispatch")]
    Dispatch(Dispatch),
    #[serde(rename = "resend")]
    Resend(Resend),
}

/// To a scheduler's inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToScheduler {
    /// The worker has the batch: custody of interactive items passes here, and their frames may be acked. Deferred ones stay
    /// the owner's until `done`.
    #[serde(rename = "accept")]
    Accept { worker: NodeId, model: Token, batch: BatchId },
    #[serde(rename = "refuse")]
    Refuse { worker: NodeId, model: Token, batch: BatchId, reason: RefuseReason },
    /// The calls of deferred items have ended: their share of the credit is free, while their outcomes go on record.
    #[serde(rename = "freed")]
    Freed { worker: NodeId, model: Token, batch: BatchId, items: Vec<ItemDone> },
    /// Items of a batch have ended and their share of the credit is free again. Deferred ones have their outcome on record.
    #[serde(rename = "done")]
    Done { worker: NodeId, model: Token, batch: BatchId, items: Vec<ItemDone> },
    /// A call failed for a cause that another try may cure, and nobody has had a byte of it: its requests are the owner's again.
    /// The part's body is the concatenation of the items' bodies.
    #[serde(rename = "returned")]
    Returned(Returned),
    /// How does a tenant stand within its limits?
    #[serde(rename = "look")]
    Look(AskLook),
}

/// To an ingress's inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToIngress {
    /// The part's body is a piece of the answer.
    #[serde(rename = "reply")]
    Reply(Reply),
    /// A limit does not allow the request now: it is the ingress's again.
    #[serde(rename = "refused")]
    Refused { id: RequestId, refusal: Refusal },
    #[serde(rename = "held")]
    Held(Held),
    #[serde(rename = "looked")]
    Looked(Looked),
    #[serde(rename = "moved")]
    Moved(Moved),
}

/// A request lies in another model's lane now, which is to serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub id: RequestId,
    pub model: Token,
    pub epoch: u64,
    pub sequence: u64,
}

/// Asks for the live usage of a tenant and of some of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskLook {
    /// Names the question among those of its ingress.
    pub ask: u64,
    pub from: NodeId,
    pub tenant: Box<str>,
    pub keys: Vec<Box<str>>,
}

/// The answer of one scheduler's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub ask: u64,
    pub from: NodeId,
    /// The ledger is all schedulers' together: any one's answer is the whole.
    pub shared: bool,
    pub look: Look,
}

/// Broadcast to everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heartbeat {
    #[serde(rename = "worker")]
    Worker { id: NodeId, models: Vec<ModelCredit> },
    #[serde(rename = "scheduler")]
    Scheduler {
        id: NodeId,
        /// The models it owns, so that the others do not try for them.
        owns: Vec<Token>,
        /// Of those, the lanes in which something waits.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waits: Vec<Wait>,
    },
    #[serde(rename = "ingress")]
    Ingress { id: NodeId },
    /// A new owner asks every worker for a heartbeat now, before it dispatches anything.
    #[serde(rename = "probe")]
    Probe { from: NodeId },
    /// The last heartbeat of a node: it has ended. (A worker that drains first announces no credit.)
    #[serde(rename = "leaving")]
    Leaving { id: NodeId },
}

/// What waits in one lane of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub model: Token,
    pub lane: Lane,
    pub requests: u64,
    /// Until the last of them is sent to a worker, at the present pace, in milliseconds; absent while nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u32>,
    /// Those of them that the owner has; absent where it has none, and all are at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

/// The requests of a lane that its owner has and has not sent, with the sequences of the first and the last frame they came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub epoch: u64,
    pub first: u64,
    pub last: u64,
    pub requests: u64,
}

/// Broadcast to schedulers and workers: nobody waits for these any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub ids: Vec<RequestId>,
    /// Cancel only this execution: the request itself lives on in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecId>,
}

/// One batch for one backend call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    pub scheduler: NodeId,
    pub model: Token,
    pub batch: BatchId,
    /// The lease revision of the owner: a worker refuses one older than it has seen for the model.
    pub revision: u64,
    /// The backend, by its name in the configuration.
    pub backend: Box<str>,
    pub items: Vec<DispatchItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchItem {
    pub id: RequestId,
    /// What is left of the deadline at dispatch.
    pub remaining_ms: u32,
    /// Time since the request was published.
    pub queue_ms: u32,
    /// How the caller's limits stand, where there are any: for the headers of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Box<Standing>>,
    /// It was returned before: that was no attempt of its job's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The bytes of this item's body inside the part's body.
    pub body_len: u32,
    /// The encoded [`super::Envelope`], as it came from the lane.
    #[serde(with = "raw")]
    pub envelope: Bytes,
}

/// From the ingress that a stream goes to, to its [`ReplyHead::keeper`]: send it every part from this one on again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    pub exec: ExecId,
    pub from: u32,
}

/// What shared a call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    pub worker: NodeId,
    pub model: Token,
    pub batch: BatchId,
    pub fault: Fault,
    /// What the callers are told if it is not tried again.
    pub failure: Box<Failure>,
    pub items: Vec<ReturnedItem>,
}

/// A deferred item, whose bytes its owner still has, comes without envelope and body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnedItem {
    pub id: RequestId,
    /// What is left of the deadline now.
    pub remaining_ms: u32,
    /// Time since the request was published.
    pub age_ms: u32,
    /// The bytes of this item's body inside the part's body.
    pub body_len: u32,
    /// The encoded [`super::Envelope`].
    #[serde(with = "raw")]
    pub envelope: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseReason {
    #[serde(rename = "busy")]
    Busy,
    #[serde(rename = "fenced")]
    Fenced,
    #[serde(rename = "unknown_model")]
    UnknownModel,
    #[serde(rename = "draining")]
    Draining,
}

/// How one item of a batch ended at the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemDone {
    pub id: RequestId,
    pub end: ItemEnd,
    pub usage: Usage,
    /// What went wrong at the backend, if that is how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemEnd {
    #[serde(rename = "ok")]
    Answered,
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "cancelled")]
    Cancelled,
}

/// Tokens as the backend counted them, or as estimated where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input: u32,
    pub output: u32,
}

/// A piece of an answer. Parts are numbered from 0 within one execution; a gap is asked for again or an error, never a silent hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub id: RequestId,
    /// Absent when a scheduler answers for a request that never reached a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecId>,
    pub part: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
    /// With part 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Box<ReplyHead>>,
    /// With the last part: how it ended, when it ended badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<Failure>>,
    /// With the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// How the answer came about: our `x-tidemill-*` headers and the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    pub backend: Box<str>,
    /// The model, where it is a fallback of the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<str>>,
    /// Inputs in the backend call that carried this request.
    pub batch_size: u32,
    pub queue_ms: u32,
    /// From the call's start to its first byte (stream) or its end.
    pub backend_ms: u32,
    /// How the caller's limits stood when this was admitted, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Box<Standing>>,
    /// The worker, where it keeps the parts of a stream for a while and answers a [`Resend`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<NodeId>,
}

/// Each second, to each ingress: what the sender still has of it, and how far the lane has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub from: NodeId,
    /// Requests older than one second that the sender holds.
    pub ids: Vec<RequestId>,
    /// From an owner: for each of its models, the last stream sequence delivered to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub model: Token,
    /// Which incarnation of the lane's stream the sequence belongs to.
    pub epoch: u64,
    pub sequence: u64,
}

/// What a worker can take for one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCredit {
    pub model: Token,
    pub backends: Vec<BackendCredit>,
    pub running: Vec<Running>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendCredit {
    pub name: Box<str>,
    /// Calls at once: over all workers when `shared`, else by this worker alone.
    pub concurrency: u32,
    /// Outstanding tokens (input + expected output) at once.
    pub tokens: u32,
    pub shared: bool,
    /// For so long it will take no call: it has said that its rate limit is used up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rest_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub id: RequestId,
    pub exec: ExecId,
    pub lane: Lane,
    /// Its backend has begun to answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
}

/// `Bytes` as a MessagePack binary.
mod raw {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        serde_bytes::ByteBuf::deserialize(deserializer).map(|b| b.into_vec().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::quota::{self, Reason, Totals, Whose};
    use crate::wire::Part;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;
    use uuid::Uuid;

    fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
        let part = Part::encode(message, Bytes::new());
        assert_eq!(&part.decode::<T>().unwrap(), message);
    }

    #[test]
    fn every_message_round_trips() {
        let id = RequestId(Uuid::from_u128(1));
        let exec = ExecId(Uuid::from_u128(2));
        let node = NodeId::parse("node-1").unwrap();
        let model = Token::of_model("m");
        let batch = BatchId(9);
        let item = DispatchItem {
            id,
            remaining_ms: 5,
            queue_ms: 1,
            standing: None,
            again: false,
            body_len: 2,
            envelope: Bytes::from_static(b"xx"),
        };
        round_trips(&ToWorker::Dispatch(Dispatch {
            scheduler: node.clone(),
            model: model.clone(),
            batch,
            revision: 3,
            backend: "b".into(),
            items: vec![item],
        }));
        round_trips(&ToWorker::Resend(Resend { exec, from: 7 }));
        round_trips(&ToScheduler::Accept { worker: node.clone(), model: model.clone(), batch });
        round_trips(&ToScheduler::Refuse { worker: node.clone(), model: model.clone(), batch, reason: RefuseReason::Busy });
        let done = ItemDone { id, end: ItemEnd::Answered, usage: Usage { input: 1, output: 2 }, fault: None };
        round_trips(&ToScheduler::Freed { worker: node.clone(), model: model.clone(), batch, items: vec![done] });
        round_trips(&ToScheduler::Done { worker: node.clone(), model: model.clone(), batch, items: vec![done] });
        round_trips(&ToScheduler::Returned(Returned {
            worker: node.clone(),
            model: model.clone(),
            batch,
            fault: Fault::Timeout,
            failure: Box::new(Failure::new(Code::BackendTimeout, "x")),
            items: vec![ReturnedItem { id, remaining_ms: 5, age_ms: 1, body_len: 2, envelope: Bytes::from_static(b"xx") }],
        }));
        round_trips(&ToIngress::Reply(Reply {
            id,
            exec: Some(exec),
            part: 0,
            last: true,
            head: Some(Box::new(ReplyHead { keeper: Some(node.clone()), ..Default::default() })),
            failure: Some(Box::new(Failure {
                standing: Some(Box::default()),
                ..Failure::new(Code::Lost, "x").param("p").retry_after_ms(3)
            })),
            usage: None,
        }));
        let refusal = Refusal { reason: Reason::UsdPerDay, whose: Whose::Key, retry_after_ms: Some(1), standing: Standing::default() };
        round_trips(&ToIngress::Refused { id, refusal });
        round_trips(&ToScheduler::Look(AskLook { ask: 1, from: node.clone(), tenant: "t".into(), keys: vec!["k".into()] }));
        let look = Look { tenant: quota::Usage { settled: Some(Totals::default()), ..Default::default() }, keys: vec![Default::default()] };
        round_trips(&ToIngress::Looked(Looked { ask: 1, from: node.clone(), shared: false, look }));
        let passed = Passed { model: model.clone(), epoch: 1, sequence: 2 };
        round_trips(&ToIngress::Moved(Moved { id, model: model.clone(), epoch: 1, sequence: 2 }));
        round_trips(&ToIngress::Held(Held { from: node.clone(), ids: vec![id], passed: vec![passed] }));
        let credit = BackendCredit { name: "b".into(), concurrency: 1, tokens: 10, shared: true, rest_ms: 0 };
        let running = Running { id, exec, lane: Lane::Bulk, begun: false };
        let models = vec![ModelCredit { model, backends: vec![credit], running: vec![running] }];
        round_trips(&Heartbeat::Worker { id: node.clone(), models });
        let wait = Wait { model: Token::of_model("m"), lane: Lane::Async, requests: 1, ms: Some(2), span: None };
        round_trips(&Heartbeat::Scheduler { id: node.clone(), owns: vec![wait.model.clone()], waits: vec![wait] });
        round_trips(&Heartbeat::Probe { from: node.clone() });
        round_trips(&Heartbeat::Leaving { id: node });
        round_trips(&Cancel { ids: vec![id], exec: Some(exec) });
    }
}
