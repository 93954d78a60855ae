//! loop: does to the stage what the plan says, when it says so, and starts again whatever ends by itself meanwhile.

use super::disk::SmallDisk;
use super::journal::{Entry, Journal};
use super::load::Load;
use super::plan::{Fault, Planned, Who};
use super::stage::{BACKENDS, ON_SMALL_DISK, Stage};
use crate::harness::{Road, SOON, until};
use shared::task;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How often it is looked for processes that have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a slow road adds to each message. Redis is given up after 250 ms, so that both waits and refusals are seen.
const SLOW: Duration = Duration::from_millis(150);
/// The interactive lane, whose leader is killed.
const LANE: &str = "QI";

const FLOOD: u64 = 150;
const STORM: u64 = 120;
const POISONED: u64 = 42;
const LORISES: usize = 40;

/// Every way in which a backend can fail, together 5 % of its calls.
const FAULTY: &str = r#"[{"fault":{"status":503},"rate":0.01},{"fault":{"status":429},"rate":0.01},{"fault":{"status":500},"rate":0.005},{"fault":"hang","rate":0.005},{"fault":"slow_drip","rate":0.0025},{"fault":"reset","rate":0.005},{"fault":"malformed_json","rate":0.005},{"fault":"wrong_count","rate":0.005},{"fault":"partial_stream","rate":0.0025}]"#;

pub(super) struct Performer<'a> {
    stage: &'a mut Stage,
    load: &'a Arc<Load>,
    journal: &'a Journal,
    /// Who led the lane and was killed for it.
    leader: usize,
}

/// A beginning or an end.
struct Cue {
    at: Duration,
    id: usize,
    fault: Fault,
    is_end: bool,
}

impl<'a> Performer<'a> {
    pub(super) fn new(stage: &'a mut Stage, load: &'a Arc<Load>, journal: &'a Journal) -> Self {
        Self { stage, load, journal, leader: 0 }
    }

    pub(super) async fn perform(&mut self, plan: &[Planned]) {
        let (began, mut late) = (self.journal.elapsed(), Duration::ZERO);
        for cue in cues(plan) {
            while self.journal.elapsed() < began + cue.at + late {
                self.stage.supervise(self.journal);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // What takes its time, such as a restart of all servers, puts off everything after it.
            late = self.journal.elapsed().saturating_sub(began + cue.at);
            if cue.is_end {
                self.end(cue.fault).await;
                self.journal.note(Entry::Over { id: cue.id });
            } else {
                let targets = cue.fault.target().map(|who| who.to_string()).into_iter().collect();
                self.journal.note(Entry::Injected { id: cue.id, class: cue.fault.class(), targets });
                self.begin(cue.fault).await;
            }
        }
    }

    async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(who) => self.stage.kill(who).await,
            Fault::Stop(who) => self.stage.signal(who, "STOP").await,
            Fault::CutOff(who) => self.stage.weather(who).set(Road::Silent),
            Fault::HalfOpen(who) => self.stage.weather(who).set(Road::OneWay),
            Fault::Slow(who) => self.stage.weather(who).set(Road::Slow(SLOW)),
            Fault::Reset(who) => self.stage.weather(who).reset(),
            Fault::KillLeader => {
                self.leader = self.stage.nats.leader_of(LANE).unwrap_or_default();
                self.stage.kill(Who::Nats(self.leader)).await;
            }
            Fault::RollNats => self.roll_nats().await,
            Fault::RestartNats => self.restart_nats().await,
            Fault::DiskFull => self.stage.disk.iter().for_each(SmallDisk::fill),
            Fault::FlushRedis => self.stage.redis.flush().await,
            Fault::Faulty => self.backends_fail(FAULTY).await,
            Fault::Poison => self.load.poison(POISONED),
            Fault::SlowLoris => (0..2).for_each(|ingress| slow_lorises(self.stage.address(Who::Ingress(ingress)))),
            Fault::Flood => self.load.flood(FLOOD),
            Fault::CancelStorm => self.load.cancel_storm(STORM),
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(who) => self.stage.revive(who).await,
            Fault::Stop(who) => self.stage.signal(who, "CONT").await,
            Fault::CutOff(who) | Fault::HalfOpen(who) | Fault::Slow(who) => self.stage.weather(who).set(Road::Open),
            Fault::KillLeader => self.stage.revive(Who::Nats(self.leader)).await,
            Fault::DiskFull => self.empty_disk().await,
            Fault::Faulty => self.backends_fail("[]").await,
            Fault::Reset(_) | Fault::RollNats | Fault::RestartNats | Fault::FlushRedis => {}
            Fault::Poison | Fault::SlowLoris | Fault::Flood | Fault::CancelStorm => {}
        }
    }

    /// One server after the other is asked to end, and waited for.
    async fn roll_nats(&mut self) {
        for index in 0..self.stage.nats.ports().len() {
            self.stage.nats.signal(index, "TERM");
            until("a nats-server ends when asked", SOON, async || self.stage.nats.has_ended(index)).await;
            self.stage.nats.launch(index);
            self.stage.nats.whole().await;
        }
    }

    async fn restart_nats(&mut self) {
        let servers = 0..self.stage.nats.ports().len();
        servers.clone().for_each(|index| self.stage.nats.kill(index));
        servers.for_each(|index| self.stage.nats.launch(index));
        self.stage.nats.whole().await;
    }

    /// A nats-server that could not write has left JetStream until it is started again.
    async fn empty_disk(&mut self) {
        self.stage.disk.iter().for_each(SmallDisk::empty);
        self.stage.kill(Who::Nats(ON_SMALL_DISK)).await;
        self.stage.revive(Who::Nats(ON_SMALL_DISK)).await;
    }

    async fn backends_fail(&self, rates: &str) {
        for backend in 0..BACKENDS {
            // One that is dead at the moment comes back without faults.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stage.backend(backend).post("/faults", rates.to_owned())).await;
        }
    }
}

/// The beginnings and ends of a plan, in their order.
fn cues(plan: &[Planned]) -> Vec<Cue> {
    let of =
        |(id, one): (usize, &Planned)| [(one.at, false), (one.until, true)].map(|(at, is_end)| Cue { at, id, fault: one.fault, is_end });
    let mut cues: Vec<Cue> = plan.iter().enumerate().flat_map(of).collect();
    cues.sort_by_key(|cue| cue.at);
    cues
}

/// Connections that send a head a byte at a time, until the ingress has had enough.
fn slow_lorises(address: &str) {
    for _ in 0..LORISES {
        let address = address.trim_start_matches("http://").to_owned();
        task::spawn("slow loris", async move {
            let Ok(mut connection) = TcpStream::connect(address).await else { return };
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nhost: nobody\r\n" {
                if connection.write_u8(*byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
}
