//! core: the batches of a world: the ingresses' own driver, one broker call a turn, and around it what the steward does: a lease for
//! each batch, taken, renewed, and lost.

use crate::happening::Happening;
use crate::plan::{MODEL, Traffic};
use crate::spec::Spec;
use crate::tasks::Process;
use crate::world::{World, tenant};
use bytes::Bytes;
use futures::FutureExt;
use ingress::simulated::{Batched, Composer, Driver, Yard, claim, row_id};
use serde_json::Value;
use shared::broker::{Broker, Bucket, Store};
use shared::clock::Time;
use shared::domain::{RequestId, Token};
use shared::jobs::{self, Batch, BatchState, Counts, Cursor, File, Purpose, Stored};
use shared::wire::{Cancel, Envelope, JobRef};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often batches that nobody drives are looked for.
const ROUND: Duration = Duration::from_secs(1);

const RENEW_EVERY: Duration = Duration::from_millis(500);

/// Batches of one world.
const BATCHES_MAX: usize = 3;

/// Lines of a segment: few, so that a short batch has several.
const SEGMENT_LINES: usize = 4;

/// A batch that was created.
pub(crate) struct Ordered {
    pub(crate) id: Token,
    tenant: usize,
    envelopes: Arc<BTreeMap<RequestId, Envelope>>,
    off: Arc<Mutex<Vec<RequestId>>>,
}

/// A batch that an ingress drives.
pub(crate) struct Drive {
    task: u64,
    revision: u64,
}

/// What a driver asks of its ingress.
struct SimulatedYard {
    broker: Arc<dyn Broker>,
    clock: Arc<AtomicU64>,
    envelopes: Arc<BTreeMap<RequestId, Envelope>>,
    /// What nobody waits for any more, for the world to tell.
    off: Arc<Mutex<Vec<RequestId>>>,
}

impl Yard for SimulatedYard {
    fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    fn now(&self) -> Time {
        Time(self.clock.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        self.now().as_micros() / 1_000
    }

    fn line_bytes_max(&self) -> usize {
        1_024
    }

    fn segment_lines_max(&self) -> usize {
        SEGMENT_LINES
    }

    fn composer<'a>(&'a self, batch: &'a Batch) -> Composer<'a> {
        let remaining_ms = u32::try_from(batch.expires_ms.saturating_sub(self.unix_ms())).unwrap_or(u32::MAX);
        Box::new(move |of: JobRef, id, body| {
            let envelope = Envelope { remaining_ms, job: Some(Box::new(of)), ..self.envelopes[&id].clone() };
            let line: Value = serde_json::from_slice(&body).expect("a line of this world");
            Ok(Batched { model: Token::of_model(MODEL), envelope, body: line["ask"].to_string().into() })
        })
    }

    fn call_off(&self, ids: Vec<RequestId>) {
        self.off.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }
}

impl World {
    /// A tenant creates a batch of so many lines.
    pub(crate) fn order_batch(&mut self, traffic: &Traffic, ingress: usize, lines: u64) {
        if self.batches.len() == BATCHES_MAX {
            return;
        }
        let name = self.mint().simple().to_string();
        let id = Token::parse(&format!("batch_{name}")).expect("hexadecimal digits are a token");
        let drawn = RequestId(self.mint());
        let first = self.draw_spec(traffic, ingress, drawn);
        let specs: Vec<Rc<Spec>> = (0..usize::try_from(lines).expect("few"))
            .map(|line| {
                let (segment, row) = (index(line / SEGMENT_LINES), index(line % SEGMENT_LINES));
                let drawn = self.draw_spec(traffic, ingress, row_id(&id, segment, row));
                let (tenant, deadline, patient, leaves) = (first.tenant, first.deadline, first.patient, first.leaves);
                Rc::new(Spec { tenant, deadline, patient, leaves, ..drawn })
            })
            .collect();
        self.lay_down(&id, &specs);
        if let Some(after) = first.leaves {
            self.post(after, Happening::CancelBatch(id.clone()));
        }
        let envelopes = Arc::new(specs.iter().map(|spec| (spec.id, self.envelope(spec))).collect());
        self.audit.ordered(&id, specs);
        self.batches.push(Ordered { id, tenant: first.tenant, envelopes, off: Arc::default() });
    }

    /// The input file and the record of a batch, as an ingress has answered for them.
    fn lay_down(&self, id: &Token, specs: &[Rc<Spec>]) {
        let first = &specs[0];
        let lines: Vec<String> =
            specs.iter().enumerate().map(|(n, spec)| format!("{{\"custom_id\":\"{n}\",\"body\":{{\"ask\":{}}}}}\n", text(spec))).collect();
        let (file, tenant) = (Token::parse(&format!("file-{id}")).expect("a token"), Box::<str>::from(tenant(first.tenant)));
        let content = Bytes::from(lines.concat());
        let uploaded = File {
            id: file.clone(),
            tenant: tenant.clone(),
            name: "input.jsonl".into(),
            purpose: Purpose::Batch,
            bytes: content.len() as u64,
            lines: lines.len() as u64,
            parts: 1,
            created_ms: self.unix_ms(),
            expires_ms: None,
            content: None,
            fingerprint: Vec::new(),
        };
        let batch = Batch {
            id: id.clone(),
            tenant,
            role: "role".into(),
            key: None,
            scope: None,
            op: self.plan.op(),
            fingerprint: Vec::new(),
            input: file.clone(),
            window: "24h".into(),
            metadata: BTreeMap::new(),
            state: BatchState::InProgress,
            created_ms: self.unix_ms(),
            expires_ms: first.deadline.as_micros().div_ceil(1_000),
            in_progress_ms: None,
            finalizing_ms: None,
            cancelling_ms: None,
            ended_ms: None,
            failure: None,
            counts: Counts { total: lines.len() as u64, ..Counts::default() },
            driver: 0,
            settled: 0,
            cursor: Cursor::default(),
            open: Vec::new(),
            output: None,
            errors: None,
            notified: false,
            input_tokens: 0,
            output_tokens: 0,
        };
        let broker = Arc::clone(&self.stored);
        let stored = async move {
            broker.blob_put(Store::Files, &File::part_key(&file, 0), content).await?;
            jobs::create(broker.as_ref(), &uploaded).await?;
            jobs::create(broker.as_ref(), &batch).await
        };
        stored.now_or_never().expect("the broker waits for nobody").expect("a new batch");
    }

    pub(crate) fn handle_batch(&mut self, happening: Happening) {
        let n = match &happening {
            Happening::CancelBatch(batch) => return self.cancel_batch(batch.clone()),
            Happening::Drive(n) => *n,
            Happening::Driving { ingress, .. }
            | Happening::KeepDriving { ingress, .. }
            | Happening::Renewed { ingress, .. }
            | Happening::Driven { ingress, .. } => *ingress,
            _ => return,
        };
        if !self.ingresses[n].alive {
            return;
        }
        if let Some(idle) = self.postpones(Process::Ingress(n)) {
            return self.post(idle, happening);
        }
        match happening {
            Happening::Drive(_) => self.assign(n),
            Happening::Driving { batch, revision: Some(revision), .. } => self.drive(n, batch, revision),
            Happening::KeepDriving { batch, .. } => self.renew(n, batch),
            Happening::Renewed { batch, revision, .. } => self.renewed(n, batch, revision),
            Happening::Driven { batch, .. } => self.give_back(n, batch),
            _ => {}
        }
    }

    /// Tries for the lease of each batch that has not ended.
    fn assign(&mut self, n: usize) {
        self.post(ROUND, Happening::Drive(n));
        let open: Vec<Token> = self.batches.iter().map(|one| one.id.clone()).filter(|id| !self.audit.has_ended(id)).collect();
        for batch in open.into_iter().filter(|id| !self.drives.contains_key(&(n, id.clone()))).collect::<Vec<_>>() {
            let (broker, name) = (Arc::clone(&self.broker), self.ingresses[n].id.clone());
            self.begin(Process::Ingress(n), async move {
                let value = Bytes::copy_from_slice(name.as_str().as_bytes());
                let revision = broker.record_create(Bucket::Leases, batch.as_str(), value).await.ok();
                Happening::Driving { ingress: n, batch, revision }
            });
        }
    }

    fn drive(&mut self, n: usize, batch: Token, revision: u64) {
        let ordered = self.batches.iter().find(|one| one.id == batch).expect("a batch of this world");
        let (envelopes, off, tenant) = (Arc::clone(&ordered.envelopes), Arc::clone(&ordered.off), tenant(ordered.tenant));
        let yard = Arc::new(SimulatedYard { broker: Arc::clone(&self.broker), clock: Arc::clone(&self.clock), envelopes, off });
        let driven = batch.clone();
        let task = self.begin(Process::Ingress(n), async move {
            let _ = take_on(yard, &tenant, &driven, revision).await; // It is taken up again.
            Happening::Driven { ingress: n, batch: driven }
        });
        self.drives.insert((n, batch.clone()), Drive { task, revision });
        self.post(RENEW_EVERY, Happening::KeepDriving { ingress: n, batch });
    }

    fn renew(&mut self, n: usize, batch: Token) {
        let Some(Drive { revision, .. }) = self.drives.get(&(n, batch.clone())) else { return };
        let (broker, name, revision) = (Arc::clone(&self.broker), self.ingresses[n].id.clone(), *revision);
        self.begin(Process::Ingress(n), async move {
            let value = Bytes::copy_from_slice(name.as_str().as_bytes());
            let revision = broker.record_update(Bucket::Leases, batch.as_str(), value, revision).await.ok();
            Happening::Renewed { ingress: n, batch, revision }
        });
    }

    /// The lease was written again, or it is another's: then its driver stops wherever it is.
    fn renewed(&mut self, n: usize, batch: Token, revision: Option<u64>) {
        let Some(drive) = self.drives.get_mut(&(n, batch.clone())) else { return };
        match revision {
            Some(revision) => {
                drive.revision = revision;
                self.post(RENEW_EVERY, Happening::KeepDriving { ingress: n, batch });
            }
            None => {
                self.tasks.end(drive.task);
                self.drives.remove(&(n, batch));
            }
        }
    }

    fn give_back(&mut self, n: usize, batch: Token) {
        let Some(Drive { revision, .. }) = self.drives.remove(&(n, batch.clone())) else { return };
        let broker = Arc::clone(&self.broker);
        self.begin(Process::Ingress(n), async move {
            let _ = broker.record_delete(Bucket::Leases, batch.as_str(), revision).await; // It will run out.
            Happening::Nothing
        });
    }

    fn cancel_batch(&mut self, batch: Token) {
        let n = self.rng.index(self.ingresses.len());
        if !self.ingresses[n].alive {
            return;
        }
        let tenant = tenant(self.batches.iter().find(|one| one.id == batch).expect("a batch of this world").tenant);
        let (broker, now_ms) = (Arc::clone(&self.broker), self.unix_ms());
        self.begin(Process::Ingress(n), async move {
            let _ = jobs::change(broker.as_ref(), &tenant, &batch, |batch: &mut Batch| {
                let goes_on = matches!(batch.state, BatchState::Validating | BatchState::InProgress);
                if goes_on {
                    (batch.state, batch.cancelling_ms) = (BatchState::Cancelling, Some(now_ms));
                }
                goes_on
            })
            .await;
            Happening::Nothing
        });
    }

    /// Tells what drivers have called off.
    pub(crate) fn call_off_rows(&mut self) {
        let off: Vec<RequestId> =
            self.batches.iter().flat_map(|one| std::mem::take(&mut *one.off.lock().unwrap_or_else(PoisonError::into_inner))).collect();
        if !off.is_empty() {
            self.cancel(&Cancel { ids: off, exec: None });
        }
    }
}

async fn take_on(yard: Arc<SimulatedYard>, tenant: &str, id: &Token, fence: u64) -> Result<(), jobs::StoreError> {
    let broker = Arc::clone(&yard.broker);
    let Some(stored): Option<Stored<Batch>> = jobs::get(broker.as_ref(), tenant, id).await? else { return Ok(()) };
    if stored.value.state.is_terminal() {
        return Ok(());
    }
    let file: Option<Stored<File>> = jobs::get(broker.as_ref(), tenant, &stored.value.input).await?;
    let file = file.expect("nobody deletes the file").value;
    let claimed = claim(broker.as_ref(), &stored.value, fence, file.lines, yard.unix_ms()).await?;
    Driver::resume(yard, claimed, file).await?.run().await.map(drop)
}

fn text(spec: &Spec) -> String {
    String::from_utf8(spec.prompt().to_vec()).expect("a prompt is text")
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("few lines")
}
