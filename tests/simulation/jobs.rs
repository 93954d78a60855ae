//! core: the jobs of a world: submitted, called off and swept by the ingresses' own code, one broker call a turn.

use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::spec::Spec;
use crate::tasks::Process;
use crate::world::{World, tenant};
use ingress::simulated::{Duty, addressed, duty, expire, look_after, request_id, submit};
use shared::domain::RequestId;
use shared::jobs::{self, End, Job, State};
use shared::wire::Cancel;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds of the sweeper.
const SWEEP: Duration = Duration::from_secs(5);

/// No world lasts so long.
const KEEP_MS: u64 = 86_400_000;

impl World {
    /// Somebody submits a job, and may call it off later.
    pub(crate) fn order(&mut self, ingress: usize, spec: &Rc<Spec>) {
        self.post(Duration::ZERO, Happening::Submit { ingress, id: spec.id });
        if let Some(after) = spec.leaves {
            self.post(after, Happening::CancelJob(spec.id));
        }
    }

    pub(crate) fn handle_job(&mut self, happening: Happening) {
        match happening {
            Happening::Submit { ingress, id } => self.submit(ingress, id),
            Happening::Submitted { id, taken } => self.audit.submitted(id, taken),
            Happening::CancelJob(id) => self.call_off(id),
            Happening::CalledOff { ids } if !ids.is_empty() => self.cancel(&Cancel { ids, exec: None }),
            Happening::Sweep(n) => self.sweep(n),
            _ => {}
        }
    }

    fn submit(&mut self, n: usize, id: RequestId) {
        if !self.ingresses[n].alive {
            return self.audit.submitted(id, false);
        }
        if let Some(idle) = self.postpones(Process::Ingress(n)) {
            return self.post(idle, Happening::Submit { ingress: n, id });
        }
        let spec = self.audit.spec(id);
        let job = self.fresh(&spec);
        let within_ms = job.deadline_ms.saturating_sub(job.created_ms);
        let envelope = addressed(self.envelope(&spec), job.id.clone(), within_ms);
        let (broker, model, body) = (Arc::clone(&self.broker), self.model.clone(), spec.prompt());
        self.begin(Process::Ingress(n), async move {
            // Told that it has failed already, they know.
            let taken = submit(broker.as_ref(), job, &model, envelope, body).await.is_ok_and(|job| job.state != State::Failed);
            Happening::Submitted { id, taken }
        });
    }

    fn fresh(&self, spec: &Spec) -> Job {
        Job {
            id: spec.job(),
            tenant: tenant(spec.tenant).into(),
            model: crate::plan::MODEL.into(),
            op: self.plan.op(),
            stream: false,
            state: State::Accepted,
            attempts: 0,
            created_ms: self.unix_ms(),
            started_ms: None,
            ended_ms: None,
            deadline_ms: spec.deadline.as_micros().div_ceil(1_000),
            fingerprint: spec.prompt().to_vec(),
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

    /// Those who heard nothing ask again elsewhere, under the same name; some never do.
    pub(crate) fn ask_again(&mut self, unheard: Vec<RequestId>) {
        for id in unheard {
            if self.rng.happens(500) {
                let (after, ingress) = (self.rng.millis(10, 2_000), self.ingresses.len() - 1);
                self.audit.submitted_again(id, ingress);
                self.post(after, Happening::Submit { ingress, id });
            }
        }
    }

    /// By whichever ingress its owner asks.
    fn call_off(&mut self, id: RequestId) {
        let n = self.rng.index(self.ingresses.len());
        if !self.ingresses[n].alive {
            return;
        }
        let (broker, spec) = (Arc::clone(&self.broker), self.audit.spec(id));
        let (tenant, job) = (tenant(spec.tenant), spec.job());
        self.begin(Process::Ingress(n), async move {
            let ended = jobs::conclude(broker.as_ref(), &tenant, &job, &End::Cancelled).await;
            Happening::CalledOff { ids: ended.is_ok().then_some(id).into_iter().collect() }
        });
    }

    /// The first ingress that lives has the lease; in trouble another may believe that it has.
    fn sweep(&mut self, n: usize) {
        if !self.ingresses[n].alive {
            return;
        }
        self.post(SWEEP, Happening::Sweep(n));
        let is_first = self.ingresses.iter().position(|one| one.alive) == Some(n);
        let is_noticed = self.now < self.plan.faults.until && self.rng.happens(200);
        if !is_first && !is_noticed {
            return;
        }
        let (broker, now_ms) = (Arc::clone(&self.broker), self.unix_ms());
        let sleeps = self.has(Mutation::JobsForgotten);
        let tenants: Vec<String> = (0..self.plan.quotas.len()).map(tenant).collect();
        self.begin(Process::Ingress(n), async move {
            let mut expired = Vec::new();
            for tenant in tenants {
                for job in jobs::all::<Job>(broker.as_ref(), &tenant).await.unwrap_or_default() {
                    let job = job.value;
                    match duty(&job, now_ms, KEEP_MS) {
                        Duty::Expire => {
                            if expire(broker.as_ref(), &job).await.is_ok() {
                                expired.push(request_id(&job.id));
                            }
                        }
                        Duty::LookAfter if !sleeps => drop(look_after(broker.as_ref(), &job, now_ms).await),
                        Duty::LookAfter | Duty::Forget | Duty::Tell | Duty::Nothing => {}
                    }
                }
            }
            Happening::CalledOff { ids: expired }
        });
    }
}
