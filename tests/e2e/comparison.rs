//! Promise: the comparison with other gateways measures what it says. Kept to the two contenders that need no installation.

use crate::harness::tidemill;
use loadtest::arena::{Backend, Programs};
use loadtest::backend::{self, Costs};
use loadtest::compare::{self, Report, Settings};
use loadtest::contender;
use loadtest::scenario::{self, Scenario};
use tokio::net::TcpListener;

const CONTENDERS: [&str; 2] = ["direct", "tidemill-memory"];

/// A standard scenario, cut short.
fn short(name: &str) -> Scenario {
    Scenario { seconds: 1.0, warm_up_seconds: 0.2, ..scenario::named(name).expect("a standard scenario") }
}

/// One round with the backend in this process.
async fn compare(scenarios: Vec<Scenario>) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let costs = Costs::default();
    let contenders = contender::ALL.into_iter().filter(|contender| CONTENDERS.contains(&contender.name())).collect();
    let programs = Programs { tidemill: tidemill().get_program().into(), backend: Backend::Url(url), costs, peers: "unused".into() };
    tokio::select! {
        () = backend::serve(listener, costs) => unreachable!("it serves until it is dropped"),
        report = compare::measure(Settings { contenders, scenarios, rounds: 1, programs }, |_| ()) => report.expect("it measures"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_contender_meets_every_scenario_and_its_cost_is_seen() {
    let report = compare(vec![short("chat-16"), short("open-mix")]).await;
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert_eq!(report.samples.len(), 4);
    for sample in &report.samples {
        assert!(sample.failures.is_empty(), "{} {}: {:?}", sample.scenario, sample.contender, sample.failures);
        assert!(sample.summary.answered > 0, "{} {}", sample.scenario, sample.contender);
    }
    let mut through = report.samples.iter().filter(|sample| sample.contender == "tidemill-memory");
    assert!(through.all(|sample| sample.cpu_us.is_some_and(|us| us > 0.0) && sample.peak_kib > 0), "{:?}", report.samples);
    assert!(report.to_string().contains("| tidemill-memory |"), "{report}");
}
