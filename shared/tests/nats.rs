//! The contract of the broker port on a real nats-server, and what only NATS can get wrong.

use async_nats::jetstream;
use shared::broker::Broker;
use shared::broker::contract::{self, Pair};
use shared::broker::nats::child::{self, NatsServer};
use shared::broker::nats::{NatsBroker, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn program() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("shared/ is in the repository");
    child::find(repository).expect("no nats-server was found: run tests/run --setup first")
}

async fn start() -> (NatsServer, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let server = NatsServer::start(&program(), folder.path(), None).await.expect("a server");
    (server, folder)
}

async fn connect(server: &NatsServer) -> Arc<dyn Broker> {
    NatsBroker::connect(server.url(), options()).await.expect("a broker")
}

fn options() -> Options {
    Options { limits: contract::limits(), ..Options::default() }
}

#[tokio::test]
async fn the_nats_broker_keeps_the_contract() {
    let (server, _folder) = start().await;
    let pair = Pair { one: connect(&server).await, other: connect(&server).await };
    contract::run(&pair).await;
    server.stop().await;
}

#[tokio::test]
async fn raw() {
    let (server, _folder) = start().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let _js = jetstream::new(client.clone());
}
#[tokio::test]
async fn stoptime() {
    let (server, _folder) = start().await;
    let b = connect(&server).await;
    let t = std::time::Instant::now();
    server.stop().await;
    eprintln!("stop took {:?}", t.elapsed());
    drop(b);
}
