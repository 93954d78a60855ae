//! The contract of the broker port on a real nats-server, and what only NATS can get wrong.

mod process;
mod readers;
mod refusals;
mod restart;
mod tls;
mod vanished;

use bytes::Bytes;
use shared::broker::contract::{self, Pair};
use shared::broker::nats::child::{self, NatsServer};
use shared::broker::nats::{NatsBroker, Options};
use shared::broker::{Broker, Delivery, LaneFilter, LaneSubject, Puller};
use shared::domain::{Lane, Token};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for anything that is going to come.
const SOON: Duration = Duration::from_secs(10);

fn program() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("shared/ is in the repository");
    child::find(repository).expect("no nats-server was found: run tests/run --setup first")
}

async fn start() -> (NatsServer, TempDir) {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    (server, folder)
}

async fn start_in(folder: &TempDir, port: Option<u16>) -> NatsServer {
    NatsServer::start(&program(), folder.path(), port).await.unwrap()
}

fn options() -> Options {
    Options { limits: contract::limits(), ..Options::default() }
}

async fn connect(server: &NatsServer) -> Arc<NatsBroker> {
    NatsBroker::connect(server.url(), options()).await.unwrap()
}

async fn raw(server: &NatsServer) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

fn filter(lane: Lane) -> LaneFilter {
    LaneFilter { lane, model: Token::of_model("model"), part: 0 }
}

fn subject(lane: Lane, origin: &str) -> LaneSubject {
    LaneSubject { lane, model: Token::of_model("model"), part: 0, origin: Token::parse(origin).unwrap() }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The next delivery, over whatever happens to the connection meanwhile.
async fn pull_one(puller: &mut Box<dyn Puller>) -> Delivery {
    let next = async {
        loop {
            if let Some(delivery) = puller.pull(1, SOON).await.ok().and_then(|mut some| some.pop()) {
                return delivery;
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("a delivery in time")
}

#[tokio::test]
async fn the_nats_broker_keeps_the_contract() {
    let (server, _folder) = start().await;
    let pair = Pair { one: connect(&server).await, other: connect(&server).await };
    contract::run(&pair).await;
    server.stop().await;
}

#[tokio::test]
async fn the_nats_broker_says_when_it_is_full() {
    let (server, _folder) = start().await;
    let cramped = || Options { limits: contract::cramped(), ..Options::default() };
    let one = NatsBroker::connect(server.url(), cramped()).await.unwrap();
    let other = NatsBroker::connect(server.url(), cramped()).await.unwrap();
    contract::run_cramped(&Pair { one, other }).await;
}

#[tokio::test]
async fn the_banner_names_the_server_and_its_version() {
    let (server, _folder) = start().await;
    let broker = connect(&server).await;
    let version = child::version(&program()).await.unwrap();
    assert_eq!(broker.describe(), format!("{} ({version})", server.url()));
    assert!(broker.is_connected());
}
