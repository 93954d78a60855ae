//! Promise: who asked for it is told when a batch or a background response has ended, by a webhook that the official SDKs' `webhooks.unwrap` takes, and nothing
//! that was changed on the way.

use crate::harness::{Mill, Program, SOON, node_js, python};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const KEY_TOLD: &str = "sk-e2e-canary-told";
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
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: serde_json::Map<_, _> = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
    Post { headers: serde_json::Value::from(headers).to_string(), body: body.to_owned() }
}

async fn run(mut interpreter: Command, script: &str, env: &[(&str, &str)]) -> String {
    interpreter.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script)).envs(env.iter().copied());
    let ended = Program::start("sdk", interpreter).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{script}: {}\n{}", ended.out, ended.err);
    ended.out.trim().to_owned()
}

/// Something is submitted, ends, and its tenant is told: the SDK of `interpreter` says of what.
async fn is_told(submit: &str, event: &str, interpreter: Command, script: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let webhook = format!("{{ url: \"http://127.0.0.1:{port}/\", secret: \"{SECRET}\", events: [ \"{event}\" ] }}");
    let tenant = format!("{{ name: told, keys: [ {KEY_TOLD} ], webhooks: [ {webhook} ] }}");
    let policy = format!("webhooks: {{ allow_private: true, allow_http: true, ports: [ {port} ] }}\n");
    let mill = Mill::up().tenant(&tenant).sections(&policy).start().await;

    let submitted = run(python(), submit, &[("TIDEMILL_URL", mill.ingress(0)), ("TIDEMILL_KEY", KEY_TOLD)]).await;
    let post = timeout(SOON, receive(&listener)).await.expect("the target is told in time");
    let env = [("WEBHOOK_SECRET", SECRET), ("WEBHOOK_HEADERS", &post.headers), ("WEBHOOK_BODY", &post.body)];
    assert_eq!(run(interpreter, script, &env).await, format!("{event} {submitted}, and three forgeries refused"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_takes_what_is_told_of_a_batch() {
    is_told("submit_batch.py", "batch.completed", python(), "unwrap_webhook.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_takes_what_is_told_of_a_background_response() {
    is_told("submit_response.py", "response.completed", python(), "unwrap_webhook.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_sdk_takes_what_is_told_of_a_batch() {
    is_told("submit_batch.py", "batch.completed", node_js(), "unwrap_webhook.mjs").await;
}
