//! Promise: every malformed thing gets a 4xx with a code and a sentence, in time, and the server lives on.
//!
//! What is not HTTP at all, or exceeds its limits, is answered by the HTTP library itself: there only the status counts.

use crate::harness::{KEY, Mill, Program, RawConnection, SOON, chat, prompt, tidemill};
use std::fmt::Write;
use std::net::TcpListener;

/// One malformed request and what it must get.
struct Case {
    what: &'static str,
    request: Vec<u8>,
    status: u16,
    code: &'static str,
}

const CHAT: &str = "POST /v1/chat/completions";

fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nhost: tidemill\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        let _ = write!(head, "{header}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// With a valid key, as JSON.
fn post(body: &[u8]) -> Vec<u8> {
    with_header("x-request-id: bad-input", body)
}

fn with_header(header: &str, body: &[u8]) -> Vec<u8> {
    request(CHAT, &[&format!("authorization: Bearer {KEY}"), "content-type: application/json", header], body)
}

fn case(what: &'static str, request: Vec<u8>, status: u16, code: &'static str) -> Case {
    Case { what, request, status, code }
}

fn bad_bodies() -> Vec<Case> {
    let deep = format!("{{\"model\":\"chat\",\"messages\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let too_large = format!(
        "{CHAT} HTTP/1.1\r\nhost: tidemill\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    );
    vec![
        case("an empty body", post(b""), 400, "invalid_json"),
        case("half an object", post(b"{\"model\":\"chat\""), 400, "invalid_json"),
        case("bytes after the object", post(b"{\"model\":\"chat\"} x"), 400, "invalid_json"),
        case("an array", post(b"[1,2]"), 400, "invalid_json"),
        case("bytes that are no UTF-8", post(b"{\"model\":\"\xff\xfe\"}"), 400, "invalid_json"),
        case("half a surrogate pair", post(br#"{"model":"\ud800","messages":[{"role":"user","content":"x"}]}"#), 400, "invalid_value"),
        case("deep nesting", post(deep.as_bytes()), 400, "json_too_deep"),
        case("no model", post(b"{}"), 400, "missing_required_parameter"),
        case("a model that is a number", post(br#"{"model":5,"messages":[]}"#), 400, "invalid_value"),
        case("no messages", post(br#"{"model":"chat"}"#), 400, "missing_required_parameter"),
        case("messages that are text", post(br#"{"model":"chat","messages":"x"}"#), 400, "invalid_value"),
        case("an unknown model", post(chat("nobody", "x").as_bytes()), 404, "model_not_found"),
        case("a model that cannot do it", post(chat("embed", "x").as_bytes()), 400, "operation_not_supported"),
        case("a body announced as too large", too_large.into_bytes(), 413, "body_too_large"),
    ]
}

fn bad_heads() -> Vec<Case> {
    let (key, json) = (format!("authorization: Bearer {KEY}"), "content-type: application/json");
    let body = chat("chat", "x");
    let body = body.as_bytes();
    vec![
        case("no key", request(CHAT, &[json], body), 401, "missing_api_key"),
        case("an unknown key", request(CHAT, &["authorization: Bearer sk-nobody", json], body), 401, "invalid_api_key"),
        case("two keys", request(CHAT, &[&key, &key, json], body), 400, "multiple_credentials"),
        case("keys in two places", request(CHAT, &[&key, "x-api-key: sk-nobody", json], body), 400, "multiple_credentials"),
        case("text instead of JSON", request(CHAT, &[&key, "content-type: text/plain"], body), 415, "unsupported_media_type"),
        case("a timeout that is no number", with_header("x-request-timeout-ms: soon", body), 400, "invalid_header"),
        case("a timeout of nothing", with_header("x-request-timeout-ms: 0", body), 400, "invalid_header"),
        case("a timeout above an hour", with_header("x-request-timeout-ms: 3600001", body), 400, "invalid_header"),
        case("an unknown path", request("POST /v1/nothing", &[&key, json], body), 404, "not_found"),
        case("a method that is not there", request("DELETE /v1/chat/completions", &[&key, json], b""), 405, "method_not_allowed"),
        case("an unknown model's page", request("GET /v1/models/nobody", &[&key], b""), 404, "model_not_found"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn malformed_requests_get_a_code_and_a_sentence() {
    let mill = Mill::up().start().await;
    let mut wrong = Vec::new();
    for case in bad_bodies().into_iter().chain(bad_heads()) {
        let mut connection = RawConnection::open(mill.ingress(0)).await;
        connection.send(&case.request).await;
        let Some(answer) = connection.answer(SOON).await else {
            wrong.push(format!("{}: no answer", case.what));
            continue;
        };
        let (code, message) = answer.error();
        if (answer.status, code.as_str()) != (case.status, case.code) || !message.contains(' ') {
            wrong.push(format!("{}: expected {} {}, got {} {}", case.what, case.status, case.code, answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    still_serves(&mill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_http_is_refused_and_the_server_lives_on() {
    let mill = Mill::up().start().await;
    let flood: String = (0..2_000).fold(String::new(), |all, i| format!("{all}x-flood-{i}: {}\r\n", "y".repeat(100)));
    let requests = [
        ("no HTTP", b"\x16\x03\x01 what is this\r\n\r\n".to_vec()),
        ("a flood of headers", format!("GET /v1/models HTTP/1.1\r\nhost: tidemill\r\n{flood}\r\n").into_bytes()),
        ("an endless line", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1_000_000)).into_bytes()),
        ("a length that is no number", b"POST /v1/embeddings HTTP/1.1\r\nhost: tidemill\r\ncontent-length: many\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in requests {
        let mut connection = RawConnection::open(mill.ingress(0)).await;
        connection.send(&bytes).await;
        // A server may close on what it cannot read; if it answers, then with the client's fault.
        let status = connection.answer(SOON).await.map(|answer| answer.status);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{what}: {status:?}");
    }
    still_serves(&mill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_never_ends_its_body_gets_a_408() {
    let mill = Mill::up().limit("body_timeout_ms: 300").start().await;
    let mut connection = RawConnection::open(mill.ingress(0)).await;
    let whole = post(chat("chat", &prompt("slow")).as_bytes());
    connection.send(&whole[..whole.len() - 5]).await;
    let answer = connection.answer(SOON).await.expect("an answer, not a hang");
    assert_eq!((answer.status, answer.error().0.as_str()), (408, "request_timeout"));
    still_serves(&mill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_never_ends_its_headers_is_let_go() {
    let mill = Mill::up().limit("header_timeout_ms: 300").start().await;
    let mut connection = RawConnection::open(mill.ingress(0)).await;
    connection.send(b"GET /v1/models HTTP/1.1\r\nhost: tide").await;
    let status = tokio::time::timeout(SOON, connection.answer(SOON * 2)).await.expect("the connection ends").map(|answer| answer.status);
    assert!(status.is_none_or(|status| status == 408), "{status:?}");
    still_serves(&mill).await;
}

async fn still_serves(mill: &Mill) {
    let answer = mill.client().post("/v1/chat/completions", chat("chat", &prompt("still there"))).await.expect("the server lives");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_configuration_error_names_file_line_and_key_before_a_port_is_bound() {
    let files = [
        ("listen: 127.0.0.1:1\nmodles: []\n", 2, "modles"),
        ("models:\n  - name: m\n    kind: array\n    backends:\n      - { kind: openai }\n", 5, "url"),
        ("models:\n  - name: m\n    kind: arrays\n    backends: []\n", 3, "arrays"),
        ("limits:\n  body_bytes_max: plenty\n", 2, "body_bytes_max"),
        ("tenants:\n  - name: t\n    keys: [ env:E2E_NOT_SET ]\n", 3, "E2E_NOT_SET"),
    ];
    // The port is taken: a process that binds before it reads would complain of that instead.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    for (yaml, line, key) in files {
        std::fs::write(&file, yaml).unwrap();
        for role in ["up", "ingress", "scheduler", "worker", "check"] {
            let mut command = tidemill();
            command.args([role, "--config"]).arg(&file).current_dir(folder.path());
            if matches!(role, "up" | "ingress") {
                command.args(["--listen", &port]);
            }
            let ended = Program::start(role, command).end(SOON).await;
            let place = format!("{}:{line}: ", file.display());
            assert_eq!(ended.code, Some(2), "{role} with {yaml}: {ended:?}");
            assert!(ended.err.contains(&place) && ended.err.contains(key), "{role} should name {place} and {key}: {}", ended.err);
        }
    }
}
