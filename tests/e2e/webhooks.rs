//! Promise: a webhook is what the official SDKs' `webhooks.unwrap` takes, and nothing that was changed on the way.

use crate::harness::{Program, SOON, node_js, python};
use ingress::webhooks::{Event, Webhooks};
use prometheus::Registry;
use shared::broker::memory::MemoryBroker;
use shared::config::{EventKind, parse};
use shared::domain::NodeId;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Time for one script: a fresh interpreter on a busy machine is slow.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a target was sent: headers as a JSON object, and the body.
struct Post {
    headers: String,
    body: String,
}

async fn receive(listener: &TcpListener) -> Post {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut post = Vec::new();
    while !post.ends_with(b"}}") {
        assert!(socket.read_buf(&mut post).await.unwrap() > 0, "cut off");
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let post = String::from_utf8(post).unwrap();
    let (head, body) = post.split_once("\r\n\r\n").unwrap();
    let headers: serde_json::Map<_, _> =
        head.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.into())).collect();
    Post { headers: serde_json::Value::from(headers).to_string(), body: body.to_owned() }
}

/// A webhook as a target gets it.
async fn webhook() -> Post {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hook = format!("{{ url: 'http://127.0.0.1:{port}/', secret: {SECRET} }}");
    let policy = format!("{{ allow_private: true, allow_http: true, ports: [ {port} ] }}");
    let config = parse(&format!("webhooks: {policy}\ntenants: [ {{ name: t, webhooks: [ {hook} ] }} ]\n"), "f").unwrap();
    let id = NodeId::parse("ingress").unwrap();
    let (webhooks, _task) = Webhooks::start(&config, MemoryBroker::new(), id, &Registry::new()).await.unwrap();
    webhooks.announce("t", &Event::new(EventKind::BatchCompleted, "batch_1", 1_700_000_000)).await.unwrap();
    timeout(SOON, receive(&listener)).await.expect("a post in time")
}

async fn unwraps(mut interpreter: Command, script: &str) {
    let post = webhook().await;
    interpreter.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script));
    interpreter.env("WEBHOOK_SECRET", SECRET).env("WEBHOOK_HEADERS", post.headers).env("WEBHOOK_BODY", post.body);
    let ended = Program::start("sdk", interpreter).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{script}: {}\n{}", ended.out, ended.err);
    assert_eq!(ended.out.trim(), "batch.completed batch_1, and three forgeries refused", "{script}");
}

#[tokio::test]
async fn the_python_sdk_unwraps_it() {
    unwraps(python(), "unwrap_webhook.py").await;
}

#[tokio::test]
async fn the_node_sdk_unwraps_it() {
    unwraps(node_js(), "unwrap_webhook.mjs").await;
}
