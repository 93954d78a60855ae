//! loop: what a request costs as one thing grows: callers, offered load, tenants, models, open streams.
//!
//! Every point has a contender of its own, started for it: memory is that of this point alone, and nothing of the points
//! before it is left.

use crate::arena::{Arena, ArenaError, Programs};
use crate::clock::Stopwatch;
use crate::contender::{Contender, Running};
use crate::measure::{self, Prepared, Sample};
use crate::process;
use axis::Axis;
use serde::Serialize;
use std::time::Duration;

pub mod axis;
pub mod curves;

/// What grows, and before whom.
#[derive(Clone, Debug)]
pub struct Settings {
    pub contenders: Vec<Contender>,
    pub axes: Vec<Axis>,
    /// Seconds counted of each point.
    pub seconds: f64,
    pub programs: Programs,
}

/// One contender at one point of one axis.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub axis: Axis,
    pub at: usize,
    pub sample: Sample,
    /// CPU time of its processes while nobody asks anything, as a share of one core.
    pub idle_cpu: f64,
}

/// What happened just now, for whoever watches.
pub enum Progress<'a> {
    Measured(&'a Point),
    /// The contender could not be started there.
    Skipped(Axis, usize, &'static str, String),
}

/// A process just started still settles.
const SETTLE: Duration = Duration::from_millis(500);
/// Idleness is watched for this long: a hundredth of a core is one tick of the kernel's CPU accounting.
const IDLE: Duration = Duration::from_secs(1);

/// Measures every point of every axis.
pub async fn measure(settings: &Settings, mut watch: impl FnMut(&Progress<'_>)) -> Result<Vec<Point>, ArenaError> {
    let arena = Arena::start(&settings.programs).await?;
    let mut points = Vec::new();
    for &axis in &settings.axes {
        for &at in axis.values() {
            for contender in settings.contenders.iter().filter(|contender| axis.is_for(**contender)) {
                match point(&arena, settings.seconds, axis, at, *contender).await {
                    Ok(point) => {
                        watch(&Progress::Measured(&point));
                        points.push(point);
                    }
                    Err(reason) => watch(&Progress::Skipped(axis, at, contender.name(), reason)),
                }
            }
        }
    }
    Ok(points)
}

async fn point(arena: &Arena, seconds: f64, axis: Axis, at: usize, contender: Contender) -> Result<Point, String> {
    let stage = arena.stage(&format!("{axis}-{at}"), axis.tenants(at), axis.models(at));
    let running = contender.start(&stage).await.map_err(|error| error.to_string())?;
    tokio::time::sleep(SETTLE).await;
    let idle_cpu = idle_cpu(&running).await;
    let scenario = axis.scenario(at, seconds);
    let sample = measure::sample(&running, &Prepared::new(scenario), 0).await;
    Ok(Point { axis, at, sample, idle_cpu })
}

async fn idle_cpu(running: &Running) -> f64 {
    let (began, before) = (Stopwatch::start(), process::cpu_times(&running.processes()));
    tokio::time::sleep(IDLE).await;
    let spent: f64 = process::cpu_times(&running.processes()).since(&before).iter().map(|process| process.seconds).sum();
    spent / began.elapsed().as_secs_f64()
}
