//! The `openai` backend against peers that answer byte for byte as a script says: what no well-behaved server does.

use bytes::Bytes;
use shared::config::{self, Secret, Target};
use shared::domain::Operation;
use shared::error::Code;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use workers::backend::{Answer, Backend, BackendError, Blame, EmbedCall, EventStream, GenerateCall, http};

const EVENTS: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";
const EMBEDDED: &str = r#"{"data":[{"index":0,"embedding":[1]}]}"#;

/// A listener and a backend that calls it.
async fn peer() -> (TcpListener, Backend) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let target =
        Target::OpenAi { url, model: "there".into(), key: Some(Secret::literal("sk-backend").unwrap()), tls: None, stream_usage: true };
    let timeout = Duration::from_secs(10);
    let config = config::Backend { name: "b".into(), target, concurrency: 1, tokens_max: 1, per_worker: false, timeout };
    (listener, Backend::new(&config, &mut http::Clients::default()).unwrap())
}

fn answer(form: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {form}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads one request, head and body, and writes `answer`.
async fn serve(socket: &mut TcpStream, answer: &str) -> String {
    let mut request = Vec::new();
    loop {
        let read = socket.read_buf(&mut request).await.unwrap();
        assert!(read > 0, "the request is cut off");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            break;
        }
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

async fn serve_once(listener: &TcpListener, answer: &str) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let request = serve(&mut socket, answer).await;
    (socket, request)
}

async fn stream(backend: &Backend) -> Result<EventStream, BackendError> {
    let body = Bytes::from_static(br#"{"model":"here","messages":[],"stream":true}"#);
    let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let call = GenerateCall { op: Operation::Chat, body, model_at: Some((9, 15)), stream: true, traceparent };
    match backend.generate(call).await? {
        Answer::Stream(stream) => Ok(stream),
        Answer::Whole { .. } => panic!("a whole answer to a stream"),
    }
}

async fn embed(backend: &Backend) -> Result<Vec<Vec<f32>>, BackendError> {
    let inputs = [Bytes::from_static(b"\"a\"")];
    let call = EmbedCall { inputs: &inputs, count: 1, params: "", traceparent: None };
    backend.embed(call).await.map(|embedded| embedded.vectors)
}

/// The failure of a stream that the peer answers so, wherever it shows.
async fn failure(form: &str, body: &str) -> BackendError {
    let (listener, backend) = peer().await;
    let answer = answer(form, body);
    let (_peer, opened) = tokio::join!(serve_once(&listener, &answer), stream(&backend));
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        match stream.next().await.expect("an end without an error") {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_request_carries_what_the_backend_needs_and_no_more() {
    let (listener, backend) = peer().await;
    let answer = answer(EVENTS, "data: [DONE]\n\n");
    let ((_socket, request), _) = tokio::join!(serve_once(&listener, &answer), stream(&backend));
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer sk-backend\r\n"), "{head}");
    assert!(head.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "{head}");
    assert_eq!(body, r#"{"stream_options":{"include_usage":true},"model":"there","messages":[],"stream":true}"#);
}

#[tokio::test]
async fn an_error_beside_a_200_is_an_error_in_every_form() {
    let error = r#"{"error":{"message":"too long","code":400}}"#;
    for (form, body) in [
        (JSON, error.to_owned()),
        (EVENTS, format!("data: {error}\n\ndata: [DONE]\n\n")),
        (EVENTS, format!("data: {{\"choices\":[]}}\n\nevent: error\ndata: {error}\n\n")),
    ] {
        let error = failure(form, &body).await;
        assert_eq!((error.failure.code, error.blame), (Code::BackendRejected, Blame::MaybeItem), "{body}");
        assert!(error.failure.message.ends_with("too long"));
    }
}

#[tokio::test]
async fn a_stream_that_is_none_or_ends_early_never_looks_complete() {
    let table = [
        (JSON, r#"{"choices":[]}"#, Code::BackendMalformed),
        ("text/html", "<html>", Code::BackendMalformed),
        (EVENTS, "", Code::StreamInterrupted),
        (EVENTS, "data: {\"choices\":[]}\n\n", Code::StreamInterrupted),
        (EVENTS, "data: {\"choices\":[]}\n\ndata: [DONE]", Code::StreamInterrupted),
        (EVENTS, "data: {\"choices\":[\n\n", Code::BackendMalformed),
    ];
    for (form, body, code) in table {
        assert_eq!(failure(form, body).await.failure.code, code, "{body}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_an_answer_and_after_a_stream() {
    let (listener, backend) = peer().await;
    let (embedded, events) = (answer(JSON, EMBEDDED), answer(EVENTS, ": hello\r\n\r\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n"));
    let script = async {
        let (mut socket, _) = serve_once(&listener, &embedded).await;
        serve(&mut socket, &events).await;
        serve(&mut socket, &embedded).await;
    };
    let calls = async {
        assert_eq!(embed(&backend).await.unwrap(), [[1.0]]);
        let mut stream = stream(&backend).await.unwrap();
        let mut frames = Vec::new();
        while let Some(event) = stream.next().await {
            frames.push(event.unwrap().bytes);
        }
        assert_eq!(frames, ["data: {}\n\n", "data: [DONE]\n\n"]);
        assert_eq!(embed(&backend).await.unwrap(), [[1.0]]);
    };
    tokio::join!(script, calls);
}

#[tokio::test]
async fn dropping_a_call_or_a_stream_closes_its_connection() {
    let (listener, backend) = peer().await;
    let begun = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n";
    let mut silent = tokio::select! {
        (socket, _) = serve_once(&listener, "") => socket,
        answer = embed(&backend) => panic!("{answer:?}"),
    };
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0, "closed");

    let ((mut socket, _), stream) = tokio::join!(serve_once(&listener, begun), stream(&backend));
    let mut stream = stream.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0, "closed");
}

#[tokio::test]
async fn a_rate_limit_that_is_used_up_is_rested_for() {
    let (listener, backend) = peer().await;
    let used_up = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\nx-ratelimit-limit-requests: 10\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1m40s\r\ncontent-length: {}\r\n\r\n{EMBEDDED}",
        EMBEDDED.len()
    );
    assert_eq!(backend.rests(), Duration::ZERO);
    let (_peer, vectors) = tokio::join!(serve_once(&listener, &used_up), embed(&backend));
    assert_eq!(vectors.unwrap(), [[1.0]]);
    assert!((Duration::from_secs(8)..=Duration::from_millis(10_001)).contains(&backend.rests()), "{:?}", backend.rests());
}
