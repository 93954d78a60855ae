//! core: what the simulation of the whole system reaches of this crate's inside. For it alone.

pub use crate::batches::{Batched, Composer, Driver, Yard, claim, row_id};
pub use crate::jobs::sweeper::{Duty, duty, expire, look_after};
pub use crate::jobs::{accept as submit, addressed, request_id};

use crate::batches::RequestLine;
use crate::pending::Pending;
use crate::publisher;
use crate::table::{Action, Entry, EventSizes, Table};
use crate::ticket::{Meter, Piece, Setback};
use bytes::Bytes;
use shared::broker::Stored;
use shared::clock::Time;
use shared::domain::{NodeId, Operation, RequestId, Token};
use shared::error::Failure;
use shared::quota::Refusal;
use shared::wire::{Cancel, Envelope, Resend, ToIngress};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The request of a batch's line.
///
/// # Errors
/// What its caller would be told.
pub fn request_line(op: Operation, line: &Bytes) -> Result<Bytes, Failure> {
    RequestLine::read(op, Some(line)).body
}

/// What one ingress waits for: its table, as the road uses it.
#[derive(Default)]
pub struct Desk(Table);

/// What the table asks its owner to do.
#[derive(Debug, Default)]
pub struct Orders {
    pub cancels: Vec<Cancel>,
    pub publish: Vec<RequestId>,
    pub asks: Vec<(NodeId, Resend)>,
}

/// The right to one answer, as a handler has it.
pub struct Answer {
    pieces: UnboundedReceiver<Piece>,
    /// What of a stream waits for its caller.
    draining: Option<Meter>,
}

/// What its caller gets next.
#[derive(Debug)]
pub enum News {
    Part { number: u32, body: Bytes, last: bool },
    Failed(Failure),
    Refused(Refusal),
}

impl Desk {
    pub fn wait(&mut self, envelope: Envelope, body: Bytes, deadline: Time) -> Answer {
        let (pieces, answer) = unbounded_channel();
        let (meter, stream, model) = (Meter::default(), envelope.stream, Token::of_model(&envelope.model));
        let draining = stream.then(|| meter.clone());
        let pending = Pending::new(stream);
        self.0.insert(Entry {
            pending,
            envelope,
            model,
            body,
            deadline,
            pieces,
            meter,
            events: EventSizes::default(),
            account: None,
            waits: false,
            lies_in: None,
        });
        Answer { pieces: answer, draining }
    }

    /// What is still waited for of these requests, in as few frames as they fit.
    pub fn loads(&mut self, ids: &[RequestId], now: Time) -> Vec<(Vec<RequestId>, Bytes)> {
        publisher::loads(self.0.parts(ids, now)).into_iter().map(|load| (load.ids, load.frame)).collect()
    }

    pub fn published(&mut self, ids: &[RequestId], stored: Stored, now: Time) {
        self.0.published(ids, stored, now);
    }

    pub fn hear(&mut self, message: ToIngress, body: Bytes, now: Time) -> Orders {
        match message {
            ToIngress::Reply(reply) => Orders::of(self.0.hear(reply, body, now)),
            ToIngress::Held(held) => {
                self.0.held(&held, now);
                Orders::default()
            }
            ToIngress::Refused { id, refusal } => {
                self.0.give_back(id, refusal);
                Orders::default()
            }
            ToIngress::Moved(moved) => {
                self.0.moved(moved, now);
                Orders::default()
            }
            ToIngress::Looked(_) => Orders::default(),
        }
    }

    pub fn sweep(&mut self, now: Time) -> Orders {
        Orders::of(self.0.sweep(now))
    }

    pub fn abandon(&mut self, id: RequestId, now: Time) -> Orders {
        Orders::of(self.0.abandon(id, now))
    }

    pub fn is_waiting(&self, id: RequestId) -> bool {
        self.0.get(id).is_some()
    }
}

impl Orders {
    /// In an order of their own: the table's is another in each process.
    fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        let mut orders = Self::default();
        for action in actions {
            match action {
                Action::Cancel(cancel) => orders.cancels.push(cancel),
                Action::Publish(id, _) => orders.publish.push(id),
                Action::Ask(worker, resend) => orders.asks.push((worker, resend)),
            }
        }
        orders.cancels.sort_by(|one, other| one.ids.cmp(&other.ids));
        orders.publish.sort_unstable();
        orders.asks.sort_by_key(|(_, resend)| resend.exec);
        orders
    }
}

impl Answer {
    /// What has come, if anything has.
    pub fn hear(&mut self) -> Option<News> {
        match self.pieces.try_recv().ok()? {
            Ok(part) => {
                if let Some(meter) = &self.draining {
                    meter.sub(part.body.len());
                }
                Some(News::Part { number: part.number, body: part.body, last: part.last })
            }
            Err(Setback::Failed(failure)) => Some(News::Failed(failure)),
            Err(Setback::Refused(refusal)) => Some(News::Refused(refusal)),
        }
    }
}
