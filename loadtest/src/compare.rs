//! loop: the comparison: every scenario, met by every contender, in every round, in alternating order.
//!
//! All contenders stand ready the whole time, so that those compared are measured within seconds of each other. Only
//! ratios within a round mean anything; the tables hold medians over the rounds.

use crate::arena::{Arena, ArenaError, Programs};
use crate::backend::Costs;
use crate::contender::{Contender, ContenderError, Running, Stage, peer};
use crate::measure::{self, Prepared, Sample};
use crate::scenario::Scenario;
use serde::Serialize;
use std::time::Duration;

pub mod figures;
mod padding;
mod table;
pub mod targets;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Settings {
    pub contenders: Vec<Contender>,
    pub scenarios: Vec<Scenario>,
    pub rounds: usize,
    pub programs: Programs,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenarios: Vec<Scenario>,
    /// Of the mock, if that was the backend.
    pub costs: Option<Costs>,
    pub samples: Vec<Sample>,
    pub skipped: Vec<Skipped>,
}

/// A contender that could not be measured, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    pub contender: &'static str,
    pub reason: String,
}

/// What happened just now, for whoever watches.
pub enum Progress<'a> {
    Starting(&'static str),
    Skipped(&'a Skipped),
    Measured(&'a Sample),
}

/// Between two samples: what the last contender still had to tidy up does not fall to the next.
const PAUSE: Duration = Duration::from_millis(150);

/// Measures all of it.
pub async fn measure(settings: Settings, mut watch: impl FnMut(&Progress<'_>)) -> Result<Report, ArenaError> {
    let arena = Arena::start(&settings.programs).await?;
    let tenants = settings.scenarios.iter().map(|scenario| scenario.tenants).max().unwrap_or(1);
    let (running, skipped) = start_all(&settings.contenders, &arena.stage("contenders", tenants, 0), &mut watch).await;
    let costs = settings.programs.backend.model().is_none().then_some(settings.programs.costs);
    let mut report = Report { scenarios: settings.scenarios, costs, samples: Vec::new(), skipped };
    let prepared: Vec<Prepared> = report.scenarios.iter().cloned().map(Prepared::new).collect();
    for round in 0..settings.rounds {
        for prepared in &prepared {
            for running in order(&running, round).filter(|running| prepared.scenario.is_for(running.name)) {
                tokio::time::sleep(PAUSE).await;
                let sample = measure::sample(running, prepared, round).await;
                watch(&Progress::Measured(&sample));
                report.samples.push(sample);
            }
        }
    }
    Ok(report)
}

/// Who cannot be started is left out: the others are still worth comparing.
async fn start_all(contenders: &[Contender], stage: &Stage, watch: &mut impl FnMut(&Progress<'_>)) -> (Vec<Running>, Vec<Skipped>) {
    let (mut running, mut skipped) = (Vec::new(), Vec::new());
    for contender in contenders {
        watch(&Progress::Starting(contender.name()));
        match start(*contender, stage).await {
            Ok(started) => running.push(started),
            Err(error) => {
                let left_out = Skipped { contender: contender.name(), reason: error.to_string() };
                watch(&Progress::Skipped(&left_out));
                skipped.push(left_out);
            }
        }
    }
    (running, skipped)
}

/// Starts a contender; a peer that is missing is installed first.
async fn start(contender: Contender, stage: &Stage) -> Result<Running, ContenderError> {
    if let Contender::Peer(peer) = contender {
        peer::install(peer, &stage.peers)?;
    }
    contender.start(stage).await
}

/// Every other round backwards: who is measured first is not always the same.
fn order(running: &[Running], round: usize) -> Box<dyn Iterator<Item = &Running> + '_> {
    if round.is_multiple_of(2) { Box::new(running.iter()) } else { Box::new(running.iter().rev()) }
}
