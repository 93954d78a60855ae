//! core: everything that happens in a world, and to whom.

use crate::audit::Outcome;
use crate::faults::Blow;
use crate::reader::Pulled;
use crate::schedulers::Tenure;
use bytes::Bytes;
use scheduler::engine::Event;
use shared::broker::{AckToken, Stored};
use shared::domain::{Lane, NodeId, RequestId, Token};
use shared::wire::{Cancel, Dispatch, Resend, ToIngress, ToScheduler};
use std::time::Duration;

#[derive(Debug)]
pub(crate) enum Happening {
    Arrive(usize),
    Publish { ingress: usize, message: u64 },
    PublishAgain { ingress: usize, message: u64 },
    Stored { ingress: usize, message: u64, stored: Stored },
    Leave { ingress: usize, id: RequestId, outcome: Outcome },
    Pulse(usize),
    ToIngress { ingress: NodeId, message: ToIngress, body: Bytes },
    Submit { ingress: usize, id: RequestId },
    Submitted { id: RequestId, taken: bool },
    CancelJob(RequestId),
    CalledOff { ids: Vec<RequestId> },
    Sweep(usize),
    Drive(usize),
    Driving { ingress: usize, batch: Token, revision: Option<u64> },
    KeepDriving { ingress: usize, batch: Token },
    Renewed { ingress: usize, batch: Token, revision: Option<u64> },
    Driven { ingress: usize, batch: Token },
    CancelBatch(Token),
    Nothing,
    Round(usize),
    Tenure { scheduler: usize, tenure: Tenure },
    Announce { scheduler: usize, revision: u64 },
    Pull { scheduler: usize, revision: u64, lane: Lane },
    Pulled { scheduler: usize, revision: u64, pulled: Pulled },
    ToScheduler { scheduler: NodeId, message: ToScheduler, body: Bytes },
    Hear { scheduler: usize, event: Event },
    Step(usize),
    Recorded { scheduler: usize, revision: u64, id: RequestId },
    ToWorker { worker: NodeId, dispatch: Dispatch, body: Bytes },
    Begun { worker: usize, call: u64, over: Vec<RequestId> },
    Speak { worker: usize, call: u64, turn: u64 },
    Ends { worker: usize, call: u64, turn: u64 },
    Committed { worker: usize, call: u64 },
    Crash(usize),
    Beat(usize),
    Name(usize),
    Rise(usize),
    Cancelled { worker: usize, cancel: Cancel },
    Resend { worker: NodeId, resend: Resend },
    IngressHeard { worker: usize, ingress: NodeId },
    Probed(usize),
    Ack(AckToken),
    Renew(AckToken),
    Nak(AckToken, Duration),
    Turn(u64),
    Blow(Blow),
}
