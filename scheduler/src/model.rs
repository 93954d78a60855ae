//! loop: one owned model: receive → ask the engine → perform.

mod announce;
mod frames;
mod onward;
mod reading;
mod returns;

pub use frames::item;
pub use reading::{HELD_EVERY, Reading};
pub use returns::{Back, unpack};

use crate::acks::{Ack, Acks};
use crate::alarm::Alarm;
use crate::engine::{Action, Cause, Engine, EngineConfig, Event, FrameKey, PATIENCE, Wait};
use crate::fallback::Forwarder;
use crate::mailbox::{Mail, Mailbox, Undelivered, mailbox};
use crate::metrics::{Metrics, ModelMetrics};
use crate::outcomes::{Failed, Registrar};
use crate::pull::{self, Read};
use crate::quota::{Counter, Treasury, Verdict};
use crate::window::Window;
use bytes::{Bytes, BytesMut};
use foldhash::{HashMap, HashMapExt};
use frames::Waiting;
use futures::FutureExt;
use futures::stream::{BoxStream, SelectAll, StreamExt, select_all};
use shared::broker::{AckToken, Address, Broker};
use shared::clock::{self, Time, millis};
use shared::config::Model;
use shared::domain::{Lane, NodeId, RequestId};
use shared::error::{Code, Failure};
use shared::outbox::Outbox;
use shared::task::{self, Guarded};
use shared::wire::{Dispatch, DispatchItem, Reply, Returned, ToIngress, ToWorker};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// A new owner asks the workers what they run and waits this long for the answers before it dispatches.
pub const SETTLE: Duration = Duration::from_millis(250);

/// What reaches the loop.
#[derive(Debug)]
enum Input {
    Read(Read),
    Event(Event),
    /// What a worker gives back, and the bodies.
    Returned(Returned, Bytes),
    /// The quota's word on a request that had to wait for it.
    Verdict(Verdict),
    /// The owner gives the model up: everything waiting goes back to the lane.
    Surrender(oneshot::Sender<()>),
}

/// What all models of a scheduler share.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) id: NodeId,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) outbox: Outbox,
    pub(crate) acks: Acks,
    pub(crate) metrics: Metrics,
    /// All that are configured, for each other's fallbacks.
    pub(crate) models: Arc<[Model]>,
    pub(crate) forwarder: Forwarder,
    pub(crate) treasury: Treasury,
}

/// A running model loop; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct ModelHandle {
    mailbox: Arc<Mailbox<Input>>,
    waits: Arc<Waits>,
    _task: Guarded,
}

/// Written by the loop each second.
type Waits = Mutex<[Wait; Lane::ALL.len()]>;

impl ModelHandle {
    /// Lossy, like the messages that come this way.
    pub(crate) fn tell(&self, event: Event) {
        self.leave(Input::Event(event));
    }

    /// What a worker returns, with the bodies end to end. As lossy.
    pub(crate) fn give_back(&self, returned: Returned, bodies: Bytes) {
        self.leave(Input::Returned(returned, bodies));
    }

    fn leave(&self, input: Input) {
        if self.mailbox.leave(input) == Err(Undelivered::Full) {
            tracing::warn!("a message was dropped: the model's mailbox is full");
        }
    }

    /// What waited in each lane a moment ago.
    pub(crate) fn waits(&self) -> [Wait; Lane::ALL.len()] {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives everything that waits back to the lane, and stops.
    pub(crate) async fn surrender(self) {
        let (done, surrendered) = oneshot::channel();
        if self.mailbox.leave(Input::Surrender(done)).is_ok() {
            let _ = surrendered.await; // A loop that ended has nothing to give.
        }
    }
}

/// Starts the loop. `revision` is the lease's, which fences this owner's dispatches.
pub(crate) fn start(office: Office, model: &Model, revision: u64) -> ModelHandle {
    let (mailbox, messages) = mailbox();
    let mailbox = Arc::new(mailbox);
    let windows = Lane::ALL.map(|lane| Arc::new(Window::new(lane)));
    let reader = |lane: Lane| pull::read(Arc::clone(&office.broker), model.token.clone(), lane, Arc::clone(&windows[lane.index()]));
    let readers = Lane::ALL.map(reader);
    let intake = Intake { messages, readers: select_all(readers), round: Vec::new() };
    let back = Arc::clone(&mailbox);
    let waits = Arc::new(Waits::default());
    let owner = Owner::new(office, model, revision, windows, Arc::clone(&waits), move |input| {
        if back.leave(input).is_err() {
            tracing::warn!("a word of the quota or the outcomes was dropped: the model's mailbox is full, or its loop has ended");
        }
    });
    ModelHandle { mailbox, waits, _task: task::spawn_guarded("model", owner.run(intake)) }
}

/// Where the loop's inputs come from.
struct Intake {
    messages: Mail<Input>,
    readers: SelectAll<BoxStream<'static, Read>>,
    round: Vec<Input>,
}

impl Intake {
    /// Waits for something to do and takes up all that is there. False when the handle is gone. Cancel-safe.
    async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            open = self.messages.take(&mut self.round) => return open,
            Some(read) = self.readers.next() => self.round.push(Input::Read(read)),
        }
        self.messages.take_ready(&mut self.round);
        true
    }

    /// Steps back once, so that every task and socket that is ready now is served before, and takes up what they sent.
    async fn gather(&mut self) {
        tokio::task::yield_now().await;
        self.messages.take_ready(&mut self.round);
        while let Some(Some(read)) = self.readers.next().now_or_never() {
            self.round.push(Input::Read(read));
        }
    }
}

struct Owner {
    office: Office,
    metrics: ModelMetrics,
    model: Model,
    revision: u64,
    announce_at: Time,
    engine: Engine,
    quota: Counter,
    registrar: Registrar,
    waiting: HashMap<RequestId, Waiting>,
    tokens: HashMap<FrameKey, AckToken>,
    reading: Reading,
    windows: [Arc<Window>; Lane::ALL.len()],
    waits: Arc<Waits>,
    actions: Vec<Action>,
    surrendered: Option<oneshot::Sender<()>>,
}

impl Owner {
    fn new(
        office: Office,
        model: &Model,
        revision: u64,
        windows: [Arc<Window>; Lane::ALL.len()],
        waits: Arc<Waits>,
        tell: impl Fn(Input) + Clone + Send + Sync + 'static,
    ) -> Self {
        let now = clock::now();
        let (ruled, recorded) = (tell.clone(), tell);
        let config = EngineConfig {
            kind: model.kind,
            max_items: model.batching.max_items,
            max_tokens: model.batching.max_tokens,
            padded: model.batching.padded,
            objective: Duration::from_millis(model.batching.objective_ms.into()),
            patience: if model.fallbacks.is_empty() { PATIENCE } else { Duration::ZERO },
            dispatch_from: now + SETTLE,
        };
        Self {
            metrics: office.metrics.of_model(&model.name),
            quota: Counter::new(
                office.treasury.clone(),
                Arc::clone(&office.broker),
                model.clone(),
                office.metrics.of_quota(&model.name),
                now,
                move |verdict| ruled(Input::Verdict(verdict)),
            ),
            registrar: Registrar::start(Arc::clone(&office.broker), move |id| recorded(Input::Event(Event::Committed(id)))),
            office,
            model: model.clone(),
            revision,
            announce_at: now + HELD_EVERY,
            engine: Engine::new(config),
            waiting: HashMap::new(),
            tokens: HashMap::new(),
            reading: Reading::new(now),
            windows,
            waits,
            actions: Vec::new(),
            surrendered: None,
        }
    }

    async fn run(mut self, mut intake: Intake) {
        let mut alarm = Alarm::new();
        loop {
            alarm.set(self.engine.wake_at().min(self.announce_at));
            tokio::select! {
                biased;
                open = intake.next() => {
                    if !open {
                        return;
                    }
                }
                () = alarm.rings() => {}
            }
            if self.engine.gathers(clock::now()) {
                intake.gather().await;
            }
            if intake.round.iter().any(|input| matches!(input, Input::Surrender(_))) {
                intake.readers.clear(); // First: what is given back must not come here again.
            }
            self.step(&mut intake.round);
        }
    }

    fn step(&mut self, round: &mut Vec<Input>) {
        let now = clock::now();
        let mut events: Vec<Event> = Vec::with_capacity(round.len());
        for input in round.drain(..) {
            self.take_in(now, input, &mut events);
        }
        if self.surrendered.is_some() {
            events.clear();
            self.give_all_back(now);
        }
        loop {
            self.engine.step(now, events.drain(..), &mut self.actions);
            for action in std::mem::take(&mut self.actions) {
                events.extend(self.perform(now, action));
            }
            if events.is_empty() {
                break;
            }
        }
        if now >= self.announce_at {
            self.announce_at = now + HELD_EVERY;
            self.announce(now);
            self.forecast(now);
            self.metrics.limits(self.engine.limits(now));
            let engine = &self.engine;
            self.quota.tend(now, |id| engine.holds(id) || engine.runs(id));
        }
        self.report();
        if let Some(done) = self.surrendered.take() {
            self.quota.when_settled(done);
        }
    }

    fn take_in(&mut self, now: Time, input: Input, events: &mut Vec<Event>) {
        match input {
            Input::Event(event) => {
                if let Event::Done { batch, items, .. } = &event {
                    self.quota.done(items, |id| self.engine.runs_besides(id, *batch));
                }
                events.push(event);
            }
            Input::Returned(returned, bodies) => events.push(self.take_returned(now, returned, &bodies)),
            Input::Verdict(verdict) => {
                let awaited = self.engine.holds(verdict.id);
                events.extend(self.quota.hear(verdict, awaited));
            }
            Input::Read(Read::Deliveries(lane, deliveries)) => {
                events.extend(deliveries.iter().filter_map(|delivery| self.take_delivery(lane, delivery)));
            }
            Input::Read(Read::Position { epoch, sequence }) => self.reading.opened(epoch, sequence),
            Input::Surrender(done) => self.surrendered = Some(done),
        }
    }

    /// Gives every frame back to its lane, those of this very round included, which the engine has not seen.
    fn give_all_back(&mut self, now: Time) {
        self.engine.surrender(&mut self.actions);
        for action in std::mem::take(&mut self.actions) {
            self.perform(now, action);
        }
        for (_, token) in self.tokens.drain() {
            self.office.acks.send(Ack::GiveBack(token, Duration::ZERO));
        }
    }

    fn perform(&mut self, now: Time, action: Action) -> Option<Event> {
        match action {
            Action::Reserve(id) => return self.engine.item(id).and_then(|item| self.quota.reserve(item)),
            Action::Dispatch { batch, worker, backend, items } => {
                self.metrics.dispatched(items.len());
                let (items, body) = self.load(now, &items);
                let (scheduler, model) = (self.office.id.clone(), self.model.token.clone());
                let dispatch = ToWorker::Dispatch(Dispatch { scheduler, model, batch, revision: self.revision, backend, items });
                self.office.outbox.post(Address::Worker(worker), &dispatch, body);
            }
            Action::Ack(frame) => self.settle(frame, Ack::Done),
            Action::Nak(frame, delay) => self.settle(frame, |token| Ack::GiveBack(token, delay)),
            Action::Renew(frame) => {
                if let Some(token) = self.tokens.get(&frame) {
                    self.office.acks.send(Ack::Renew(token.clone()));
                }
            }
            Action::Fail { id, ingress, cause } => self.fail(now, id, ingress, cause),
            Action::Refuse { id, ingress, refusal } => {
                self.office.outbox.post(Address::Ingress(ingress), &ToIngress::Refused { id, refusal }, Bytes::new());
            }
            Action::Release(id) if self.engine.holds(id) => {} // It has come again in the meantime.
            Action::Release(id) => {
                self.waiting.remove(&id);
                if !self.engine.runs(id) {
                    self.quota.unused(id);
                }
            }
        }
        None
    }

    fn settle(&mut self, frame: FrameKey, ack: impl Fn(AckToken) -> Ack) {
        if let Some(token) = self.tokens.remove(&frame) {
            self.office.acks.send(ack(token));
        }
    }

    /// The items of a batch with their bodies end to end. One item's body is passed on as it lies.
    fn load(&self, now: Time, ids: &[RequestId]) -> (Vec<DispatchItem>, Bytes) {
        let waiting: Vec<(RequestId, &Waiting)> = ids.iter().filter_map(|id| self.waiting.get(id).map(|w| (*id, w))).collect();
        let items = waiting.iter().map(|(id, waiting)| self.dispatch_item(now, *id, waiting)).collect();
        if let [(_, only)] = waiting.as_slice() {
            return (items, only.body.clone());
        }
        let mut body = BytesMut::with_capacity(waiting.iter().map(|(_, w)| w.body.len()).sum());
        waiting.iter().for_each(|(_, w)| body.extend_from_slice(&w.body));
        (items, body.freeze())
    }

    fn dispatch_item(&self, now: Time, id: RequestId, waiting: &Waiting) -> DispatchItem {
        let queued = now.since(waiting.published);
        self.metrics.waited(waiting.frame.lane, queued);
        DispatchItem {
            id,
            remaining_ms: millis(waiting.deadline.since(now)),
            queue_ms: millis(queued),
            standing: self.quota.standing(id),
            again: waiting.again,
            body_len: u32::try_from(waiting.body.len()).unwrap_or(u32::MAX),
            envelope: waiting.envelope.clone(),
        }
    }

    /// Tells the ingress, or puts it on record; unless another model serves the request.
    fn fail(&self, now: Time, id: RequestId, ingress: NodeId, cause: Cause) {
        let is_backends = matches!(cause, Cause::Down(_) | Cause::Backend(_));
        let mut failure = match cause {
            Cause::Here(code) => Failure::new(code, sentence(code)),
            Cause::Down(wait) => Failure::new(Code::BackendUnavailable, sentence(Code::BackendUnavailable)).retry_after_ms(millis(wait)),
            Cause::Backend(failure) => *failure,
        };
        failure.standing = self.quota.standing(id);
        if is_backends && self.send_on(now, id, &failure) {
            return;
        }
        self.metrics.failed(failure.code);
        if let Some(waiting) = self.waiting.get(&id).filter(|waiting| waiting.frame.lane.is_deferred()) {
            return self.registrar.record(Failed { id, envelope: waiting.envelope.clone(), failure });
        }
        let reply = Reply { id, exec: None, part: 0, last: true, head: None, failure: Some(Box::new(failure)), usage: None };
        self.office.outbox.post(Address::Ingress(ingress), &ToIngress::Reply(reply), Bytes::new());
    }

    fn report(&mut self) {
        let (free, outstanding) = self.engine.credit(clock::now());
        self.metrics.credit(free, outstanding);
        self.metrics.retried(self.engine.take_retried());
        self.quota.report();
        if self.engine.have_breakers_changed() {
            self.metrics.breakers(self.engine.breakers());
        }
        for lane in Lane::ALL {
            let (requests, bytes) = self.engine.load(lane);
            self.windows[lane.index()].holds(requests, bytes);
            self.metrics.queue(lane, self.engine.depth(lane));
        }
    }
}

const fn sentence(code: Code) -> &'static str {
    match code {
        Code::DeadlineExceeded => {
            "The deadline passed while the request waited for a worker; allow more time or try when there is less load."
        }
        Code::BackendUnavailable => "Every backend of the model fails at the moment; try again after a wait.",
        Code::Poison => "The request was run three times, and each time its worker did not live to answer: it is not tried again.",
        Code::OverLimit => "The request alone is more than a limit of its tenant or key allows; make it smaller or have the limit raised.",
        _ => "The request could not be scheduled; try again.",
    }
}
